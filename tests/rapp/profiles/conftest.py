"""Rows, tables and a small folder in the layout of the public V100 profiles."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rapp.profiles import ProfileTable, import_has_gpu
from rapp.profiles.schema import QUOTA_KINDS

Row = dict[str, Any]

# The machines that run the tests are shared: an example may take long without a fault.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def _row(**changes: object) -> Row:
    row: Row = {
        "network": "net",
        "device": "NVIDIA V100-16GB",
        "runtime": "pytorch-eager",
        "precision": "fp32",
        "batch": 1,
        "sm_pct": 50.0,
        "quota_pct": 100.0,
        "quota_kind": "launch_gate",
        "latency_ms": 10.0,
        "n_samples": 180,
        "derived": False,
        "status": "ok",
        "campaign_id": "c1",
        "anchor": False,
    }
    return row | changes


@pytest.fixture(scope="session")
def row() -> Callable[..., Row]:
    """`row(batch=2)`: a valid row with changes."""
    return _row


def _grid(
    networks: tuple[str, ...] = ("resnet18", "vgg11"),
    sms: tuple[float, ...] = (25, 50, 75, 100),
    quotas: tuple[float, ...] = (50, 100),
    batches: tuple[int, ...] = (1, 8),
) -> list[Row]:
    return [
        _row(network=n, sm_pct=s, quota_pct=q, batch=b, latency_ms=1000.0 * b * (i + 1) / (s + q))
        for i, n in enumerate(networks)
        for s in sms
        for q in quotas
        for b in batches
    ]


@pytest.fixture(scope="session")
def grid_rows() -> Callable[..., list[Row]]:
    """`grid_rows(networks, sms, quotas, batches)`: a row for each point of the product."""
    return _grid


def _positive() -> SearchStrategy[float]:
    return st.floats(1e-3, 1e6, allow_subnormal=False)


def _maybe(strategy: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.none() | strategy


_name = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=8)
_time = st.datetimes(datetime.datetime(1990, 1, 1), timezones=st.just(datetime.UTC))


@st.composite
def _valid_row(draw: st.DrawFn) -> Row:
    samples = draw(_maybe(st.integers(1, 5000)))
    low, middle, high = sorted(draw(st.tuples(_positive(), _positive(), _positive())))
    made = _row(
        network=draw(_name),
        graph_hash=draw(_maybe(_name)),
        device=draw(_name),
        device_uuid=draw(_maybe(_name)),
        batch=draw(st.integers(1, 64)),
        sm_pct=draw(st.floats(0.5, 100)),
        sm_count=draw(_maybe(st.integers(1, 132))),
        quota_pct=draw(st.floats(0.5, 100)),
        quota_kind=draw(st.sampled_from(QUOTA_KINDS)),
        window_ms=draw(_maybe(_positive())),
        idle_ms=draw(_maybe(st.floats(0, 100))),
        n_samples=samples,
        converged=draw(_maybe(st.booleans())),
        derived=draw(st.booleans()),
        anchor=draw(st.booleans()),
        software=draw(_maybe(st.dictionaries(_name, _name, max_size=2).map(json.dumps))),
        started_at=draw(_maybe(_time)),
    )
    status = draw(st.sampled_from(["ok", "failed", "skipped"]))
    if status == "ok":
        made |= {"latency_ms": draw(_positive()), "median_low_ms": low, "median_ms": middle}
        made |= {"median_high_ms": draw(_maybe(st.just(high)))}
        made |= {"p95_ms": high if (samples or 0) >= 100 else None}
    else:
        made |= {"status": status, "latency_ms": None, "reason": draw(_name)}
    return made


@pytest.fixture(scope="session")
def valid_rows() -> SearchStrategy[list[Row]]:
    """Lists of valid rows of every kind; each has its own campaign, so that no two are one point."""

    def number(rows: list[Row]) -> list[Row]:
        return [row | {"campaign_id": f"c{i % 7}-{i}"} for i, row in enumerate(rows)]

    return st.lists(_valid_row(), max_size=12).map(number)


# Networks of the public set that are not in the project's figures: see datasets/v100.md.
_NOT_IN_OUR_FIGURES = {
    "convnext_small", "densenet161", "efficientnet_b4", "efficientnet_v2_m", "inception_v3", "mnasnet0_75",
    "regnet_x_3_2gf", "regnet_y_16gf", "resnet101", "shufflenet_v2_x1_5", "vgg13_bn", "wide_resnet50_2",
}  # fmt: skip


@pytest.fixture(scope="session")
def v100(v100_dir: Path) -> ProfileTable:
    """The 57 networks of the public V100 profiles that the project's figures are computed on."""
    table = import_has_gpu(v100_dir)
    return table.filter(network=sorted(set(table.networks()) - _NOT_IN_OUR_FIGURES))


@pytest.fixture
def public_folder(tmp_path: Path) -> Path:
    """A clone in small: networks `alexnet` and `resnet18`, SM 50 and 100, quota 50 and 100, batch 1 and 8."""
    latency = tmp_path / "clone" / "data" / "graph_features_all_models"
    operators = tmp_path / "clone" / "data" / "op_runtime_features_all_models"
    latency.mkdir(parents=True)
    operators.mkdir()
    for i, network in enumerate(("alexnet", "resnet18")):
        for sm in (50, 100):
            entries = [
                {"batch": b, "sm": sm, "quota": q, "latency": (i + 1) * 1000.0 * b / (sm + q)}
                for b in (1, 8)
                for q in (50, 100)
            ]
            content: object = {"model_name": network, "profiling_result": entries}
            (latency / f"{network}_{sm}.json").write_text(json.dumps(content))
            content = {"nn.relu": [1.0, 2.0], "latency": 300.0 / sm, "batch_size": 1, "model_name": network}
            content["sm_partition"] = sm
            (operators / f"{network}_1_{sm}.json").write_text(json.dumps(content))
    return tmp_path / "clone"
