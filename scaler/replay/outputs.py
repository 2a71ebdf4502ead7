"""What a replay leaves in a folder: parquet tables, `summary.json`, `report.html`; each whole or not at all.

series.parquet      a row a policy, seed, function and tick: load, forecast, latency, allocation
instances.parquet   a row for each instance and configuration that it had, from when to when
changes.parquet     a row a change that was decided: why, and whether it was made
summary.json        the setup and the figures; written last, so that it stands for a whole folder
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rapp.errors import ConfigError
from rapp.fileio import atomic_path
from scaler.core.decision import Resize, Start
from scaler.replay.result import Figures, ReplayResult
from scaler.replay.series import COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
SUMMARY = "summary.json"


def check_folder(folder: Path, force: bool) -> None:
    """See that results can be put into a folder.

    Raises:
        ConfigError: it is a file, or holds results and `force` is not given.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder} is not a folder")
    if (folder / SUMMARY).exists() and not force:
        raise ConfigError(f"{folder} holds results already: give --force to replace them, or another --out")


def write_outputs(
    folder: Path, results: Sequence[ReplayResult], about: Mapping[str, Any], report: str
) -> None:
    """Write everything.

    Args:
        folder: made if it is not there.
        results: a policy and seed each.
        about: the setup, JSON, for `summary.json`.
        report: the page.

    Raises:
        RappError: a file cannot be written.
    """
    (folder / SUMMARY).unlink(missing_ok=True)
    for name, tables in (
        ("series", map(_series, results)),
        ("instances", map(_instances, results)),
        ("changes", map(_changes, results)),
    ):
        with atomic_path(folder / f"{name}.parquet") as path:
            _write(path, tables)
    with atomic_path(folder / "report.html") as path:
        path.write_text(report, encoding="utf-8")
    with atomic_path(folder / SUMMARY) as path:
        path.write_text(json.dumps(summary(results, about), indent=2) + "\n", encoding="utf-8")


def summary(results: Sequence[ReplayResult], about: Mapping[str, Any]) -> dict[str, Any]:
    """Setup and figures as JSON; what is not known is null."""
    return {"version": VERSION, **about, "results": [_result(one) for one in results]}


def _result(one: ReplayResult) -> dict[str, Any]:
    return {
        "policy": one.policy,
        "seed": one.seed,
        "total": _figures(one.total)
        | {
            "whole_gpu_hours": one.whole_gpu_hours,
            "starts": one.account.starts,
            "resizes": one.account.resizes,
            "drains": one.account.drains,
            "changes_not_made": one.changes_not_made,
            "lost_instances": one.account.lost_instances,
        },
        "functions": {name: _figures(figures) for name, figures in one.functions.items()},
        "recoveries": [
            {
                "at_s": had.disturbance.at_s,
                "fault": had.disturbance.fault.value,
                "target": had.disturbance.target,
                "before": had.before,
                "worst": had.worst,
                "recovery_s": had.recovery_s,
            }
            for had in one.recoveries
        ],
        "took_s": one.took_s,
    }


def _figures(figures: Figures) -> dict[str, Any]:
    content = asdict(figures)
    content["violations_at"] = {f"{m:g}": count for m, count in figures.violations_at.items()}
    content |= {
        "gpu_seconds_per_1000": figures.gpu_seconds_per_1000,
        "violation_share": figures.violation_share,
    }
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in content.items()
    }


def _write(path: Path, tables: Iterator[pa.Table]) -> None:
    import pyarrow.parquet as pq

    first = next(tables)
    schema = first.schema.with_metadata({"rapp.replay.version": str(VERSION)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        writer.write_table(first.cast(schema))
        for table in tables:
            writer.write_table(table.cast(schema))


def _table(result: ReplayResult, columns: Mapping[str, tuple[Any, Any]]) -> pa.Table:
    """A table of columns (values, type), with policy and seed before them."""
    import pyarrow as pa

    rows = len(next(iter(columns.values()))[0])
    made = {
        "policy": pa.repeat(pa.scalar(result.policy), rows),
        "seed": pa.repeat(pa.scalar(result.seed, pa.int64()), rows),
    }
    return pa.table(
        made | {name: pa.array(values, of, from_pandas=True) for name, (values, of) in columns.items()}
    )


def _series(result: ReplayResult) -> pa.Table:
    import pyarrow as pa

    series = result.series
    ticks = len(series.at_s)
    columns: dict[str, tuple[Any, Any]] = {
        "t_s": (np.tile(series.at_s, len(series.functions)), pa.float64()),
        "function": ([name for name in series.functions for _ in range(ticks)], pa.string()),
    }
    for number, name in enumerate(COLUMNS):
        columns[name] = series.values[number].ravel(), pa.float32()
    return _table(result, columns)


def _instances(result: ReplayResult) -> pa.Table:
    import pyarrow as pa

    had = result.account.allotments
    return _table(
        result,
        {
            "instance": ([one.instance for one in had], pa.string()),
            "function": ([one.function for one in had], pa.string()),
            "gpu": ([one.gpu for one in had], pa.string()),
            "row": ([one.row for one in had], pa.int32()),
            "sm_pct": ([one.config.sm_pct for one in had], pa.float64()),
            "quota_pct": ([one.config.quota_pct for one in had], pa.float64()),
            "batch": ([one.config.batch for one in had], pa.int32()),
            "from_s": ([one.from_s for one in had], pa.float64()),
            "to_s": ([one.to_s for one in had], pa.float64()),
        },
    )


def _changes(result: ReplayResult) -> pa.Table:
    import pyarrow as pa

    listed = result.series.changes
    actions = [change.action for change in listed]
    starts = [action if isinstance(action, Start) else None for action in actions]
    return _table(
        result,
        {
            "t_s": ([change.at_s for change in listed], pa.float64()),
            "function": ([action.function for action in actions], pa.string()),
            "instance": ([action.id for action in actions], pa.string()),
            "kind": ([action.kind for action in actions], pa.string()),
            "gpu": ([one and one.gpu for one in starts], pa.string()),
            "row": ([None if one is None else one.row for one in starts], pa.int32()),
            "sm_pct": ([one and one.config.sm_pct for one in starts], pa.float64()),
            "quota_pct": (
                [
                    action.quota_pct if isinstance(action, Resize) else one and one.config.quota_pct
                    for action, one in zip(actions, starts, strict=True)
                ],
                pa.float64(),
            ),
            "batch": (
                [
                    action.batch if isinstance(action, Resize) else one and one.config.batch
                    for action, one in zip(actions, starts, strict=True)
                ],
                pa.int32(),
            ),
            "reason": ([action.reason.value for action in actions], pa.string()),
            "outcome": ([change.outcome for change in listed], pa.string()),
        },
    )
