"""`run_live`: a real server under a real trace, by several policies, beside what the replay foretells.

    setup = LiveSetup.measured(functions, "profiles.parquet", folder)   # starts the server for a rehearsal
    report = run_live(setup, trace, ("hybrid", "static"), seed=0)

The replay is made of what was measured before the trial: the profile table, how networks slow each other, and
a rehearsal (`scaler.live.rehearsal`). It is made after the trial but knows nothing of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rapp.errors import ConfigError, RappError
from rapp.fileio import atomic_path
from scaler.capacity.plans import plan_table
from scaler.core.observation import GpuView
from scaler.core.settings import Settings
from scaler.functions import FunctionSpec
from scaler.live.foretelling import foretold
from scaler.live.load import LoadProgress
from scaler.live.rehearsal import Rehearsed, rehearse
from scaler.live.swing import swing
from scaler.live.trial import Outcome, Trial, run_trial
from scaler.live.trial_control import Controlled
from scaler.live.trial_server import serving
from scaler.sources.opening import open_source
from scaler.sources.scaled import Scaled
from scaler.sources.service_times import ServiceTimes
from scaler.trace import ArrivalProcess, Trace

COST_WITHIN_PCT, VIOLATIONS_WITHIN = 15.0, 3.0
"""How near a replay's cost, %, and violations, percentage points, are wanted to be."""

LEAST_RESIZES, LEAST_STARTS = 10, 2
"""Changes that a trace has to force, or the comparison says little."""


@dataclass(frozen=True, slots=True)
class LiveSetup:
    """What is tried.

    Args:
        functions: to plan with: the cold start that was measured, and the objective less the time outside of
            instances, ms.
        functions_file: for the server, with the whole objective. plan: the profile table.
        rehearsed: by function. pairs: table of how networks slow each other; None: not measured.
        device: what the server runs on.
        slo_ms: whole objectives, by function.
        unit_rps: by function, the rate within the objective of one instance in the least partition, requests
            a second.
        folder: of the results.
    """

    functions: tuple[FunctionSpec, ...]
    functions_file: Path
    plan: str
    rehearsed: Mapping[str, Rehearsed]
    pairs: Path | None
    device: GpuView
    slo_ms: Mapping[str, float]
    unit_rps: Mapping[str, float]
    folder: Path

    @staticmethod
    def measured(
        functions: Sequence[FunctionSpec], plan: str, folder: Path, pairs: Path | None = None
    ) -> LiveSetup:
        """Start the server once for a rehearsal.

        An objective that is given as a multiple counts from a request's latency on the whole device as the
        rehearsal saw it, with gateway and sockets.

        Raises:
            RappError: the server does not start, or the plan does not know a network.
            ConfigError: an objective leaves no time for batches.
        """
        source = open_source(plan)
        times = {spec.name: source.times(spec) for spec in functions}
        file = folder / "functions.yaml"
        # One of each is started, those too that may have none.
        slo_ms = {spec.name: spec.objective_ms(times[spec.name].base_ms()) for spec in functions}
        _write_functions(file, [_kept(spec) for spec in functions], slo_ms, {})
        with serving(file, folder) as server:
            rehearsed = rehearse(server, functions, times)
            backend = server.backend()
            (device,) = backend.observe().gpus
            backend.close()
        cold_start_s = {name: math.ceil(10 * one.cold_start_s) / 10 for name, one in rehearsed.items()}
        for spec in functions:
            one = rehearsed[spec.name]
            slo_ms[spec.name] = spec.objective_ms(times[spec.name].base_ms() * one.factor + one.outside_ms)
        _write_functions(file, functions, slo_ms, cold_start_s)
        planned = tuple(
            _planned(spec, slo_ms[spec.name], rehearsed[spec.name], cold_start_s[spec.name])
            for spec in functions
        )
        known = Scaled(source, {name: one.factor for name, one in rehearsed.items()})
        unit_rps = {spec.name: _unit_rps(spec, known.times(spec), device) for spec in planned}
        return LiveSetup(planned, file, plan, rehearsed, pairs, device, slo_ms, unit_rps, folder)

    def swing(self) -> Trace:
        """The trace that makes an autoscaler move on this machine."""
        return swing(self.unit_rps)


@dataclass(frozen=True, slots=True)
class Compared:
    """One policy, live and foretold."""

    policy: str
    live: Trial
    foretold: Outcome

    @property
    def cost_off_pct(self) -> float:
        """How far the replay's cost is from the real one, % of the real one."""
        return 100.0 * (self.foretold.gpu_seconds / self.live.outcome.gpu_seconds - 1.0)

    @property
    def violations_off(self) -> float:
        """How far the replay's violations are from the real ones, percentage points."""
        return 100.0 * (self.foretold.violation_share - self.live.outcome.violation_share)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; NaN as null."""
        made = {
            "policy": self.policy,
            "live": asdict(self.live.outcome),
            "foretold": asdict(self.foretold),
            "cost_off_pct": self.cost_off_pct,
            "violations_off_points": self.violations_off,
            "gateway_cores": self.live.gateway_cores,
            "generator_cores": self.live.generator_cores,
            "late_ticks": self.live.late_ticks,
            "requests": self.live.report.total.requests,
            "errors": dict(self.live.report.total.errors),
            "refused": self.live.report.total.refused,
        }
        return {name: _plain(value) for name, value in made.items()}


def run_live(
    setup: LiveSetup,
    trace: Trace,
    policies: Sequence[str],
    *,
    seed: int = 0,
    settings: Settings | None = None,
    forecaster: str = "kalman",
    on_policy: Callable[[str], None] = lambda policy: None,
    on_progress: Callable[[LoadProgress], None] | None = None,
) -> list[Compared]:
    """Try each policy in turn, and replay the same; `live.json` in the folder has the result.

    Args:
        trace: of the functions. policies: names. seed: of arrivals and noise.
        on_policy: called before each. on_progress: called each second of its load.

    Raises:
        RappError: as `run_trial` and `foretold`; the load was interrupted.
    """
    names = [spec.name for spec in setup.functions]
    arrivals = trace.arrivals(names, ArrivalProcess.POISSON, seed)
    # Two policies know the demand beforehand, as the replay tells them.
    demand = {name: _steps(trace, name, names) for name in names}
    found = []
    for policy in policies:
        on_policy(policy)
        given = Controlled(
            setup.functions, setup.plan, setup.rehearsed, policy, forecaster, settings or Settings(), demand
        )
        trial = run_trial(
            given, setup.functions_file, arrivals, trace.duration_s, setup.slo_ms, setup.folder, on_progress
        )
        if trial.report.interrupted:
            raise RappError(f"{policy}: interrupted; what came before is not reported")
        replayed = foretold(given, arrivals, trace.duration_s, setup.device, setup.pairs, seed)
        found.append(Compared(policy, trial, replayed))
        trial.report.records.write_csv(setup.folder / f"requests-{policy}.csv")
    with atomic_path(setup.folder / "live.json") as temporary:
        temporary.write_text(json.dumps([one.to_json() for one in found], indent=2) + "\n", "utf-8")
    return found


def _steps(trace: Trace, name: str, names: Sequence[str]) -> Any:
    """The rate that comes, in steps of 1 s."""
    import numpy as np

    from scaler.arrivals import RateSteps

    rps = trace.rates(names)[name]
    return RateSteps(np.append(np.arange(len(rps), dtype=np.float64), trace.duration_s), rps)


def _planned(spec: FunctionSpec, slo_ms: float, one: Rehearsed, cold_start_s: float) -> FunctionSpec:
    """What is planned with."""
    left_ms = slo_ms - one.outside_ms
    if left_ms <= spec.max_batch_delay_ms:
        raise ConfigError(
            f"function {spec.name}: of its objective of {slo_ms:.3g} ms a request spends"
            f" {one.outside_ms:.3g} ms outside of its batch: give a larger one"
        )
    changes = {"slo_ms": left_ms, "slo_multiplier": None, "cold_start_s": cold_start_s}
    return spec.model_copy(update=changes)


def _unit_rps(spec: FunctionSpec, times: ServiceTimes, device: GpuView) -> float:
    """Rate within the objective of one instance in the least partition that can be had, requests a second."""
    assert spec.slo_ms is not None, "it was worked out"
    table = plan_table(times, spec.slo_ms - spec.max_batch_delay_ms, spec.slo_quantile, spec.max_batch)
    sm_pct = max(float(times.sm_pct[0]), device.sm_step_pct)
    rps = table.resized(1, sm_pct, math.inf).capacity_rps
    # Where its objective needs more than that, whatever it serves without a break.
    return rps if rps > 0 else 1e3 / float(times.latency_ms(sm_pct, 100.0, 1))


def _kept(spec: FunctionSpec) -> FunctionSpec:
    """The same with an instance from the beginning."""
    return spec.model_copy(update={"min_instances": max(spec.min_instances, 1), "idle_to_zero_s": None})


def _write_functions(
    file: Path, functions: Sequence[FunctionSpec], slo_ms: Mapping[str, float], cold_s: Mapping[str, float]
) -> None:
    listed = []
    for spec in functions:
        one = spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        one.pop("slo_multiplier", None)
        one |= {"network": str(Path(spec.network).resolve()), "slo_ms": slo_ms[spec.name]}
        if spec.name in cold_s:
            one["cold_start_s"] = cold_s[spec.name]
        listed.append(one)
    with atomic_path(file) as temporary:
        # YAML reads JSON.
        temporary.write_text(json.dumps({"version": 1, "functions": listed}, indent=2) + "\n", "utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
