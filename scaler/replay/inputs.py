"""From what a user writes on the command line to setups of replays."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapp.errors import ConfigError
from rapp.profiles import PairTable
from rapp.recommend import Risk
from rapp.types import QuotaKind
from scaler.core.settings import Settings
from scaler.forecast.registry import forecaster
from scaler.functions import FunctionSpec, read_functions
from scaler.replay.chaos import Chaos
from scaler.replay.physics import Physics
from scaler.replay.setup import Gpus, ReplaySetup
from scaler.sources.base import LatencySource
from scaler.sources.opening import open_source
from scaler.trace import ArrivalProcess, Trace

NO_PRIOR = "none"
"""As a prior: the truth is taken from its table alone."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What is replayed, as a user writes it.

    Args:
        functions: a functions.yaml. trace: a trace, its part from `from_s` to `to_s`, `repeat` times.
        scale: how many times as many requests. arrivals: how they come at a given rate.
        truth, plan: latency sources as `open_source` takes them; without `plan` the truth is planned with.
        prior: an artifact that helps a profile table as truth to device times that launching hides; without,
            the artifact that is planned with, if there is one and the networks are given as files; or "none".
        calibration: of the artifact that is planned with.
        quota_kind: what quotas limit, in planning and in truth.
        forecaster, season_s: name of the forecaster, and its season, s.
        risk, tick_s, quantile: as `Settings`. cold_start_s: instead of that of each function.
        pairs: a pair table, how networks on one GPU slow each other.
        gpus, physics, chaos, slo_multipliers: as `ReplaySetup`.
    """

    functions: Path
    trace: str
    truth: str
    plan: str | None = None
    prior: str | None = None
    calibration: Path | None = None
    scale: float = 1.0
    from_s: float | None = None
    to_s: float | None = None
    repeat: int = 1
    arrivals: ArrivalProcess = ArrivalProcess.POISSON
    quota_kind: QuotaKind = QuotaKind.GPU_TIME
    forecaster: str = "kalman"
    season_s: float = 86_400.0
    risk: Risk = Risk.UPPER
    tick_s: float = 1.0
    quantile: float = 0.95
    cold_start_s: float | None = None
    gpus: Gpus = field(default_factory=Gpus)
    physics: Physics = field(default_factory=Physics)
    chaos: Chaos = field(default_factory=Chaos)
    pairs: Path | None = None
    slo_multipliers: tuple[float, ...] = ()

    def setups(self, seeds: Sequence[int]) -> list[ReplaySetup]:
        """A setup for each seed, checked: what can be told without running is told here.

        Raises:
            RappError: a file that cannot be read, an option out of its range, a function of which a source
                knows nothing, an objective below the fastest configuration.
        """
        specs = self._specs()
        trace = Trace.read(self.trace).window(self.from_s, self.to_s).scaled(self.scale).repeated(self.repeat)
        names = [spec.name for spec in specs]
        truth, plan = self._sources(specs)
        first = ReplaySetup(
            functions=specs,
            arrivals=trace.arrivals(names, self.arrivals, seeds[0]),
            truth=truth,
            plan=plan,
            end_s=trace.duration_s,
            gpus=self.gpus,
            seed=seeds[0],
            physics=self.physics,
            settings=Settings(tick_s=self.tick_s, quantile=self.quantile, risk=self.risk),
            forecaster=forecaster(self.forecaster, season_s=self.season_s),
            chaos=self.chaos,
            pairs=None if self.pairs is None else PairTable.read(self.pairs),
            slo_multipliers=self.slo_multipliers,
        )
        first.check()
        return [first, *(first.with_seed(s, trace.arrivals(names, self.arrivals, s)) for s in seeds[1:])]

    def _specs(self) -> tuple[FunctionSpec, ...]:
        specs = read_functions(self.functions)
        if self.cold_start_s is None:
            return specs
        if not self.cold_start_s > 0:
            raise ConfigError(f"--cold-start is {self.cold_start_s:g}: it must be above 0")
        return tuple(spec.model_copy(update={"cold_start_s": self.cold_start_s}) for spec in specs)

    def _sources(self, specs: Sequence[FunctionSpec]) -> tuple[LatencySource, LatencySource]:
        truth = open_source(self.truth, quota_kind=self.quota_kind, prior=self._prior(specs))
        if self.plan is None or (self.plan == self.truth and self.calibration is None):
            return truth, truth
        return truth, open_source(self.plan, calibration=self.calibration, quota_kind=self.quota_kind)

    def _prior(self, specs: Sequence[FunctionSpec]) -> str | None:
        if self.prior is not None:
            return None if self.prior == NO_PRIOR else self.prior
        if not self.truth.endswith(".parquet") or self.plan is None or not Path(self.plan).is_dir():
            return None
        named = [spec.name for spec in specs if spec.network_file is None]
        if named:
            _log.warning(
                "%s: no artifact helps it to device times that launching hides: %s names no ONNX file",
                self.truth, named[0],
            )  # fmt: skip
            return None
        return self.plan

    def about(self, setup: ReplaySetup, policies: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
        """The setup as JSON, for a summary."""
        chaos = self.chaos
        return {
            "trace": self.trace,
            "scale": self.scale,
            "from_s": self.from_s,
            "to_s": self.to_s,
            "repeat": self.repeat,
            "arrivals": self.arrivals.value,
            "duration_s": setup.end_s,
            "policies": list(policies),
            "seeds": list(seeds),
            "truth": setup.truth.name,
            "plan": setup.plan.name,
            "quota_kind": self.quota_kind.value,
            "forecaster": setup.forecaster.name,
            "risk": self.risk.value,
            "tick_s": self.tick_s,
            "quantile": self.quantile,
            "gpus": {
                "count": self.gpus.count,
                "memory_mib": self.gpus.memory_mib,
                "host_cores": self.gpus.host_cores,
            },
            "physics": {
                "window_s": self.physics.window_s,
                "run_noise": self.physics.run_noise,
                "process_noise": self.physics.process_noise,
                "beside": self.physics.beside,
                "pairs": None if self.pairs is None else str(self.pairs),
                "change_delay_s": self.physics.change_delay_s,
            },
            "chaos": {
                "crash_every_s": chaos.crash_every_s,
                "crash_at_s": list(chaos.crash_at_s),
                "lost_gpus": [{"at_s": at_s, "gpu": gpu} for at_s, gpu in chaos.lost_gpus],
                "blind": [{"from_s": from_s, "to_s": to_s} for from_s, to_s in chaos.blind],
                "model_factor": chaos.model_factor,
            },
            "functions": {
                spec.name: {
                    "network": spec.network_name,
                    "slo_ms": setup.objectives_ms[spec.name],
                    "slo_quantile": spec.slo_quantile,
                    "base_ms": setup.base_ms[spec.name],
                    "max_batch": spec.max_batch,
                    "cold_start_s": spec.cold_start_s,
                    "memory_mib": setup.memory_mib[spec.name],
                }
                for spec in setup.functions
            },
        }
