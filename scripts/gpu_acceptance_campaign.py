"""Steps of `gpu_acceptance.py` that run commands: what there is, `rapp doctor`, and a campaign."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from gpu_acceptance_bench import BATCHES, Bench, CheckFailed, Facts

from rapp.profiles import ProfileTable

SWEEP_SM, SWEEP_QUOTAS, SWEEP_POINTS = "20:100:20", "50,100", 20

SLOWER_TOLERANCE = 1.05
"""A larger partition may be slower by this factor: noise, and waves of thread blocks that do not divide."""


def machine(bench: Bench) -> Facts:
    """What there is: kept as nvidia-smi and pip tell it."""
    told = {"nvidia-smi.txt": ["nvidia-smi", "-q"], "packages.txt": [sys.executable, "-m", "pip", "freeze"]}
    missing = []
    for name, command in told.items():
        if shutil.which(command[0]) is None:
            missing.append(command[0])
            continue
        done = subprocess.run(command, capture_output=True, text=True)
        (bench.folder / name).write_text(done.stdout + done.stderr)
    with bench.open_device() as device:
        info = device.info
    facts = {"device": info.device, "memory_mib": info.memory_mib, "software": dict(info.software)}
    return {"said": f"{info.device}, driver {info.software['driver']}", "missing": missing, **facts}


def doctor(bench: Bench) -> Facts:
    """`rapp doctor --gpu` finds nothing to repair."""
    done = bench.rapp("doctor", "--gpu", "--json")
    (bench.folder / "doctor.json").write_text(done.stdout or done.stderr)
    try:
        checks = json.loads(done.stdout)["checks"]
    except ValueError:
        raise CheckFailed("rapp doctor ends without an answer", stderr=done.stderr[-2000:]) from None
    problems = [f"{row['name']}: {row['found']}" for row in checks if row["state"] == "problem"]
    if problems:
        raise CheckFailed("; ".join(problems), checks=checks)
    missing = [row["name"] for row in checks if row["state"] == "missing"]
    return {"said": f"{len(checks)} checks, nothing to repair, missing: {', '.join(missing) or 'nothing'}"}


def sweep(bench: Bench) -> Facts:
    """A campaign of 20 points: all end ok; a larger partition has more multiprocessors and is no slower.

    It goes at quota 50 and 100 %, each measured.
    """
    table = bench.folder / "profiles.parquet"
    quick = ("--max-seconds", "1", "--max-samples", "20") if bench.quick else ()
    done = bench.rapp(
        "profile", str(bench.network), "--device", bench.device, "--batch", ",".join(map(str, BATCHES)),
        "--sm", SWEEP_SM, "--quota", SWEEP_QUOTAS, "--quota-mode", "measure", "--out", str(table), *quick,
    )  # fmt: skip
    (bench.folder / "profile.txt").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        raise CheckFailed(f"rapp profile ends with {done.returncode}: {done.stderr.strip()[-400:]}")
    measured = [row for row in ProfileTable.read(table).arrow.to_pylist() if not row["derived"]]
    rows = [row for row in measured if not row["anchor"]]
    bad = [
        f"SM {row['sm_pct']:g} batch {row['batch']}: {row['reason']}" for row in rows if row["status"] != "ok"
    ]
    if bad or len(rows) != SWEEP_POINTS:
        raise CheckFailed(
            f"{len(rows)} of {SWEEP_POINTS} points, of which not ok: {'; '.join(bad) or 'none'}"
        )
    counts = {row["sm_pct"]: row["sm_count"] for row in rows}
    ascending = [counts[sm_pct] for sm_pct in sorted(counts)]
    if sorted(set(ascending)) != ascending:
        raise CheckFailed(f"multiprocessors by partition: {ascending}", sm_count=counts)
    slower = _slower(rows)
    if slower:
        raise CheckFailed(f"larger partitions are slower: {'; '.join(slower)}", sm_count=counts)
    anchors = [row["median_ms"] for row in measured if row["anchor"] and row["status"] == "ok"]
    drift_pct = 100 * (max(anchors) / min(anchors) - 1) if anchors else None
    said = f"20 of 20 points, multiprocessors {ascending}"
    if drift_pct is not None:
        said += f", anchors within {drift_pct:.1f} %"
    return {"said": said, "sm_count": counts, "drift_pct": drift_pct}


def _slower(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    for batch in BATCHES:
        curve = sorted(
            (row["sm_pct"], row["median_ms"])
            for row in rows
            if row["batch"] == batch and row["quota_pct"] == 100
        )
        for (small, before_ms), (large, after_ms) in pairwise(curve):
            if after_ms > SLOWER_TOLERANCE * before_ms:
                found.append(
                    f"batch {batch}: {before_ms:.2f} ms at {small:g} %, {after_ms:.2f} at {large:g} %"
                )
    return found
