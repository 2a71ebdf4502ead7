"""One part of one cell of scripts/bench_scaler.py: its policies, one after another, over its seeds.

A policy's part is one file, OUT/cells/CELL/PART-POLICY.json, with a digest of the policy's own sources and
one of everything else that a replay consists of, so that results of changed policies are known.
"""

from __future__ import annotations

import ast
import hashlib
import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench_scaler_cells import GPUS, MULTIPLIER, Cell, seeds, trace_of
from bench_scaler_times import ROOT, Saved, read_times, spec_of

from rapp.errors import ConfigError, InfeasibleError
from rapp.fileio import atomic_path
from scaler.arrivals import RateSteps
from scaler.bound import cheapest_request, tail_gpu_share
from scaler.core.decision import Decision
from scaler.core.observation import Observation, Phase
from scaler.packing import TOLERANCE
from scaler.policies import registry
from scaler.replay.result import Figures, ReplayResult
from scaler.replay.runner import replay
from scaler.replay.setup import Gpus, ReplaySetup
from scaler.trace import Trace

OF_POLICIES = ("scaler.policies", "scaler.capacity")
COMMON = (
    "arrivals.py", "functions.py", "gpu.py", "packing.py", "trace.py",
    "core/*.py", "forecast/*.py", "sources/*.py",
    "replay/cluster.py", "replay/compiling.py", "replay/device.py", "replay/events.py", "replay/physics.py",
    "replay/runner.py", "replay/view.py",
)  # fmt: skip
"""Files under scaler/ that decide or simulate beside the policies and what plans they make."""

MULTIPLIERS = (1.5, 2.0, 3.0)
SETTLING_S = 15
"""Loads begin at their full rate; after so long the first cold starts are over."""

LENIENCE = (1.0, 4.0)
"""Multiples of `hybrid`'s violations that the oracle plans for, since what it plans for is an upper bound."""


@dataclass(frozen=True, slots=True)
class Places:
    """Folders: of results and times, of the workloads' file, of traces; requests that a cell has to have."""

    out: Path
    workloads: Path
    traces: Path
    enough: int

    @property
    def times(self) -> Path:
        """Execution times."""
        return self.out / "times"

    def file(self, cell: Cell, policy: str, part: int) -> Path:
        """A policy's part of a cell."""
        return self.out / "cells" / cell.key / f"{part}-{policy}.json"


def missing(cell: Cell, part: int, places: Places, keep: Collection[str] = ()) -> list[str]:
    """Policies of a cell whose part is not there or, but for those of `keep`, was made by other sources:
    of the policy, of the core or of the replay."""
    found = []
    for policy in cell.policies:
        file = places.file(cell, policy, part)
        if not is_written(policy) or (policy == "oracle" and not is_written("hybrid")):
            continue
        fresh = file.exists() and (policy in keep or _digests_in(file) == digests(policy))
        if not fresh:
            found.append(policy)
    if "hybrid" in found and "oracle" in cell.policies and "oracle" not in (*found, *keep):
        found.append("oracle")
    return found


def digests(policy: str) -> tuple[str, str]:
    """Of a policy's sources, and of what decides and simulates beside it."""
    return policy_digest(policy), common_digest()


def _digests_in(file: Path) -> tuple[str, str]:
    result = json.loads(file.read_text())
    return str(result["policy_digest"]), str(result["common_digest"])


def run_part(cell: Cell, part: int, policies: list[str], places: Places) -> str:
    """Replay the policies over the seeds of a part; one line of what came of it."""
    begun = time.monotonic()
    trace = trace_of(cell, places.times, places.workloads, places.traces)
    names = list(cell.functions)
    expected = sum(float(rates.sum()) for rates in trace.rates(names).values())
    own = seeds(cell, expected, part, places.enough)
    for policy in policies if own else []:
        allowed: dict[str, float] | None = None
        if policy == "oracle":
            allowed = _allowance(cell, trace, part, places)
        result: dict[str, Any] = {
            "policy": policy, "plan": cell.source(policy), "part": part,
            "policy_digest": policy_digest(policy), "common_digest": common_digest(),
            "violations_planned": allowed,
            "tail_gpu_seconds": _tail(cell, trace, places) if part == 0 else None,
            "seeds": [],
        }  # fmt: skip
        for seed in own:
            try:
                result["seeds"].append(one_seed(cell, trace, policy, seed, places, allowed))
            except InfeasibleError as error:
                result["error"] = str(error)
                break
        with atomic_path(places.file(cell, policy, part)) as temporary:
            temporary.write_text(json.dumps(result))
    return f"{cell.key} part {part}: {len(policies)} policies, {time.monotonic() - begun:.0f} s"


def one_seed(
    cell: Cell, trace: Trace, policy: str, seed: int, places: Places, allowed: dict[str, float] | None
) -> dict[str, Any]:
    """Figures of one replay."""
    specs = [spec_of(network, MULTIPLIER) for network in cell.functions]
    setup = ReplaySetup(
        specs, trace.arrivals(list(cell.functions), cell.arrivals, seed), Saved(places.times, "truth"),
        Saved(places.times, cell.source(policy)), trace.duration_s, Gpus(GPUS), seed, chaos=cell.chaos[1],
        slo_multipliers=MULTIPLIERS,
    )  # fmt: skip
    options = {} if allowed is None else {"violations": allowed}
    faults: set[str] = set()
    watch = None if cell.kind != "chaos" else lambda seen, _: _note_faults(seen, _, faults)
    result = replay(setup, setup.policy(policy, **options), watch=watch)
    bound = {
        spec.name: len(setup.arrivals_of(spec.name))
        * cheapest_request(setup.truth_times[spec.name], setup.objectives_ms[spec.name], spec.max_batch).gpu_s
        for spec in specs
    }
    return _figures_of(result, bound) | {"seed": seed, "overcommitted": sorted(faults)}


def _figures_of(result: ReplayResult, bound: dict[str, float]) -> dict[str, Any]:
    late, came = (
        sum(result.series.column(name, one)[SETTLING_S:].sum() for one in result.functions)
        for name in ("violations", "arrivals")
    )
    return {
        "settled": [float(late), float(came)],
        "total": _plain(result.total),
        "functions": {name: _plain(one) for name, one in result.functions.items()},
        "bound_gpu_seconds": bound,
        "whole_gpu_hours": result.whole_gpu_hours,
        "changes": result.changes, "changes_not_made": result.changes_not_made,
        "recoveries": [
            [one.disturbance.fault.value, one.disturbance.at_s, one.before, one.worst, one.recovery_s]
            for one in result.recoveries
        ],
        "took_s": result.took_s,
    }  # fmt: skip


def _plain(figures: Figures) -> dict[str, Any]:
    names = (
        "arrivals", "served", "refused", "lost", "unfinished", "late", "violations", "p50_ms", "p95_ms",
        "p99_ms", "gpu_seconds", "host_core_seconds", "mean_instances", "most_instances",
    )  # fmt: skip
    found = {name: getattr(figures, name) for name in names}
    return found | {f"violations_{m:g}": count for m, count in figures.violations_at.items()}


def _allowance(cell: Cell, trace: Trace, part: int, places: Places) -> dict[str, float] | None:
    """What the oracle plans for: the share whose violations, on the first seed, are at most `hybrid`'s.

    Of those the cheapest; where none is, the one with the fewest violations. None: there is no `hybrid`.
    """
    first = places.file(cell, "hybrid", 0)
    if part > 0:
        planned = json.loads(places.file(cell, "oracle", 0).read_text())["violations_planned"]
        return dict(planned) if planned is not None else None
    if not first.exists():
        return None
    seen = json.loads(first.read_text())["seeds"]
    if not seen:
        return None
    shares = {
        name: sum(one["functions"][name]["violations"] for one in seen)
        / max(sum(one["functions"][name]["arrivals"] for one in seen), 1)
        for name in cell.functions
    }
    aim = seen[0]["total"]["violations"]
    tried = []
    for factor in LENIENCE:
        allowed = {name: min(max(share * factor, 1e-3 * factor), 0.5) for name, share in shares.items()}
        got = one_seed(cell, trace, "oracle", 0, places, allowed)["total"]
        over = max(got["violations"] - aim, 0)
        tried.append((over, got["gpu_seconds"], allowed))
    return min(tried, key=lambda one: one[:2])[2]


def _tail(cell: Cell, trace: Trace, places: Places) -> float | None:
    """GPU-seconds of the load with instances that change at once and for nothing, objective included."""
    total = 0.0
    for network in cell.functions:
        times, spec = read_times(places.times, "truth", network), spec_of(network, MULTIPLIER)
        steps = trace.load[None]
        assert isinstance(steps, RateSteps)
        share = tail_gpu_share(times, MULTIPLIER * times.base_ms(), spec.slo_quantile, spec.max_batch, steps)
        if share is None:
            return None
        total += share * trace.duration_s
    return total


def _note_faults(seen: Observation, _: Decision, faults: set[str]) -> None:
    """What is overcommitted: rows, GPUs, memory."""
    rows: dict[tuple[str, int], tuple[float, float]] = {}
    for one in seen.instances:
        if one.phase != Phase.LOST:
            sm, quota = rows.get((one.gpu, one.row), (0.0, 0.0))
            rows[one.gpu, one.row] = max(sm, one.config.sm_pct), quota + one.config.quota_pct
    for gpu in {place[0] for place in rows}:
        if sum(sm for (on, _), (sm, _) in rows.items() if on == gpu) > 100 + TOLERANCE:
            faults.add(f"SMs of {gpu}")
    faults |= {f"row {row} of {gpu}" for (gpu, row), (_, quota) in rows.items() if quota > 100 + TOLERANCE}


def is_written(policy: str) -> bool:
    """Whether the policy's module is there."""
    return _module_file(registry._CLASSES[policy][0]).exists()


@lru_cache(maxsize=16)
def policy_digest(policy: str) -> str:
    """Of a policy's module and those that it imports of `scaler.policies` and `scaler.capacity`."""
    waiting, seen = [_module_file(registry._CLASSES[policy][0])], set()
    while waiting:
        file = waiting.pop()
        if file in seen or not file.exists():
            continue
        seen.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(OF_POLICIES):
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                waiting += [ROOT / f"{name.replace('.', '/')}.py" for name in (str(node.module), *inside)]
    return _digest(seen)


@lru_cache(maxsize=1)
def common_digest() -> str:
    """Of what decides and simulates beside the policy."""
    files = {ROOT / "scaler" / "capacity" / "queueing.npz"}
    for name in COMMON:
        files |= {*(ROOT / "scaler").glob(name)}
    return _digest(files)


def _digest(files: set[Path]) -> str:
    found = hashlib.sha256()
    for file in sorted(files):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:16]


def _module_file(module: str) -> Path:
    return ROOT / "scaler" / "policies" / f"{module}.py"


def check_policies(names: list[str]) -> None:
    """See that the policies exist.

    Raises:
        ConfigError: one does not.
    """
    for name in names:
        if name not in registry.NAMES:
            raise ConfigError(f"no policy {name!r}: there are {', '.join(registry.NAMES)}")
