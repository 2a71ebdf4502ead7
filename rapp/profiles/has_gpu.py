"""Importer of the public V100 profiles of HAS-GPU, in the layout of github.com/KontonGu/RaPP.

    data/graph_features_all_models/<network>_<sm>.json        end-to-end latency over quota and batch
    data/op_runtime_features_all_models/<network>_1_<sm>.json times of single operators, batch 1

Latency is the mean of 180 runs with pauses of 5 ms, PyTorch eager, fp32, input 3x224x224, one NVIDIA
V100-16GB a virtual machine, MPS active-thread percentage for the SM partition. The quota gates launches
(`launch_gate`). Which machine, window, PyTorch and how many SMs it was are not published: null.
Paper: HAS-GPU, arXiv 2505.01968.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Collection, Iterator
from pathlib import Path

from rapp.errors import ConfigError, ProfileError
from rapp.profiles.coverage import coverage
from rapp.profiles.has_gpu_files import read_latency_file, read_operator_file
from rapp.profiles.table import ProfileTable
from rapp.types import QuotaKind, ResourceGrid

LATENCY_FOLDER = "graph_features_all_models"
OPERATOR_FOLDER = "op_runtime_features_all_models"

CAMPAIGN_ID = "has-gpu-v100"
DEVICE = "NVIDIA V100-16GB"
# 20 SM partitions x 10 quotas x 4 batches: the grid of the public set.
PUBLIC_GRID = ResourceGrid()

_SOFTWARE = json.dumps(
    {
        "source": "https://github.com/KontonGu/RaPP",
        "folder": f"data/{LATENCY_FOLDER}",
        "paper": "arXiv:2505.01968",
        "license": "Apache-2.0",
    },
    sort_keys=True,
)

_log = logging.getLogger(__name__)


def import_has_gpu(
    src: str | Path, graphs: str | Path | None = None, networks: Collection[str] | None = None
) -> ProfileTable:
    """Read the public V100 profiles as a profile table, one row a point, ordered by network and SM.

    Incomplete networks are kept. What is missing, and which networks have no graph file, is logged as a
    warning; `rapp.profiles.coverage.coverage(table, PUBLIC_GRID)` says it again.

    Args:
        src: a clone of the public repository, or the `data` folder in it.
        graphs: folder with `<network>.onnx` for `graph_hash`; a network without a file has null.
        networks: import these alone; all without.

    Raises:
        ProfileError: the folder has another layout, or a file holds what it must not; names file, entry
            and reason.
        ConfigError: a name in `networks` that the folder does not have, with the nearest names.
        GraphError: a graph file that cannot be read.
    """
    folder = data_folder(src) / LATENCY_FOLDER
    files = _named_files(folder, networks)
    points = [
        (network, sm_pct, *entry)
        for network, sm_pct, file in files
        for entry in read_latency_file(file, network, sm_pct)
    ]
    # Last, since it is slow: a wrong entry is told at once.
    hashes = _graph_hashes(graphs, sorted({network for network, _, _ in files}))
    rows = (_row(*point, graph_hash=hashes.get(point[0])) for point in points)
    table = ProfileTable.from_rows(rows, source=src)
    for cover in coverage(table, PUBLIC_GRID):
        if cover.missing:
            _log.warning("%s is incomplete: %s", cover.network, cover.describe_missing())
    return table


def read_operator_sums(src: str | Path) -> dict[str, dict[float, float]]:
    """The sum of the operators' times at batch 1, ms, by network and SM partition in %.

    It is the files' own key `latency`, which agrees with the sum of their lists to 3 % on average. The
    operators were timed one by one, so what the host needs to launch each is in it: where the host is the
    bottleneck (resnet50: 20 ms at every SM partition) it is no device time but bounds it from above.
    Not every network has them.

    Raises:
        ProfileError: the folder has another layout, or a file holds what it must not.
    """
    folder = data_folder(src) / OPERATOR_FOLDER
    if not folder.is_dir():
        raise ProfileError(folder, "no such folder: the operator times of the public set belong there")
    sums: dict[str, dict[float, float]] = {}
    for stem, sm_pct, file in _json_files(folder):
        network, _, batch = stem.rpartition("_")
        if batch != "1" or not network:
            raise ProfileError(file, "its name is not <network>_1_<sm>.json")
        sums.setdefault(network, {})[sm_pct] = read_operator_file(file, network, sm_pct)
    return sums


def data_folder(src: str | Path) -> Path:
    """The folder that holds `graph_features_all_models`: `src` itself, or `data` in it.

    Raises:
        ProfileError: neither does.
    """
    src = Path(src)
    try:
        if not src.is_dir():
            raise ProfileError(src, "is a file, not a folder" if src.exists() else "no such folder")
        for folder in (src, src / "data"):
            if (folder / LATENCY_FOLDER).is_dir():
                return folder
    except OSError as error:
        raise ProfileError(src, f"cannot be read: {error.strerror}") from error
    raise ProfileError(
        src,
        f"has no {LATENCY_FOLDER} and no data/{LATENCY_FOLDER}: give a clone of KontonGu/RaPP"
        " with its data set unpacked, or the data folder in it",
    )


def _named_files(folder: Path, networks: Collection[str] | None) -> list[tuple[str, float, Path]]:
    files = list(_json_files(folder))
    if not files:
        raise ProfileError(folder, "holds no <network>_<sm>.json")
    if networks is None:
        return files
    known = sorted({network for network, _, _ in files})
    unknown = [name for name in networks if name not in known]
    if unknown or not networks:
        raise ConfigError(_unknown_names(unknown, known) if unknown else "the list of networks is empty")
    return [entry for entry in files if entry[0] in networks]


def _unknown_names(unknown: list[str], known: list[str]) -> str:
    parts = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        parts.append(f"no network {name!r}" + (f" (near: {', '.join(near)})" if near else ""))
    return f"{'; '.join(parts)}; there are {len(known)}, from {known[0]} to {known[-1]}"


def _json_files(folder: Path) -> Iterator[tuple[str, float, Path]]:
    """(what stands before the last `_`, SM in %, file), by name and SM; hidden and other files are left."""
    found = []
    for file in folder.glob("[!.]*.json"):
        stem, _, sm = file.stem.rpartition("_")
        if not stem or not sm.isdecimal():
            raise ProfileError(file, "its name does not end in _<sm>.json")
        if not 0 < int(sm) <= 100:
            raise ProfileError(file, f"sm is {sm} in its name: it must lie in (0, 100]")
        found.append((stem, float(sm), file))
    return iter(sorted(found))


def _graph_hashes(graphs: str | Path | None, networks: list[str]) -> dict[str, str]:
    if graphs is None:
        return {}
    folder = Path(graphs)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of <network>.onnx files")
    # Late: a graph needs onnx, a table does not.
    from rapp.graph import OperatorGraph

    present = {name: folder / f"{name}.onnx" for name in networks if (folder / f"{name}.onnx").is_file()}
    absent = [name for name in networks if name not in present]
    if absent:
        _log.warning("without a graph in %s, so graph_hash is null: %s", folder, ", ".join(absent))
    return {name: OperatorGraph.from_onnx(file).graph_hash for name, file in present.items()}


def _row(
    network: str, sm_pct: float, batch: int, quota_pct: float, latency_ms: float, graph_hash: str | None
) -> dict[str, object]:
    return {
        "network": network,
        "graph_hash": graph_hash,
        "device": DEVICE,
        "runtime": "pytorch-eager",
        "precision": "fp32",
        "batch": batch,
        "sm_pct": sm_pct,
        "quota_pct": quota_pct,
        "quota_kind": QuotaKind.LAUNCH_GATE.value,
        "idle_ms": 5.0,
        "latency_ms": latency_ms,
        "n_samples": 180,
        "derived": False,
        "status": "ok",
        "campaign_id": CAMPAIGN_ID,
        "anchor": False,
        "software": _SOFTWARE,
    }
