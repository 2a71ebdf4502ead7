"""Correction: what predicted execution times are off by, learned from those observed, function by function.

Two factors: of device time (device time charged over D at the SM partition and mean batch) and of pace (time
until a batch is computed over T there). Each is an average in logarithms over batches:

    step = n / (PRIOR_BATCHES + n + seen) x (log(observed / predicted) - log(factor))

with n batches in the tick and `seen` before it, of which the last `MEMORY_BATCHES` count. PRIOR_BATCHES
stand for the prediction: this is the posterior mean of a normal prior whose variance is that of
PRIOR_BATCHES observations, and the deviation of the posterior is that of the prior times

    spread = sqrt(PRIOR_BATCHES / (PRIOR_BATCHES + seen)).

So at the risk `upper` the interval is not thrown away with the first batch: the factor from the mean to its
upper end is raised to the power `spread`, from 1 down to 0.2 with `MEMORY_BATCHES` of evidence.

Factors are quantised to `STEP`, with hysteresis, so that what policies compute from times stays valid from
tick to tick.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from scaler.core.corrected import SPREAD_STEPS
from scaler.core.needs import at_mean_batch, batch_times
from scaler.core.observation import InstanceView
from scaler.sources.service_times import ServiceTimes

LEAST, MOST = 0.5, 2.0
"""Bounds of a factor: a prediction that is further off than that is wrong, not inexact."""

LOG_LEAST, LOG_MOST = math.log(LEAST), math.log(MOST)

PRIOR_BATCHES = 20.0
"""Batches that the prediction counts as: with the 5.8 % by which instances of the public V100 profiles differ
and the 16 % of an interval of 1.3, one instance outweighs it, so a second or so of its batches has to."""

MEMORY_BATCHES = 500.0
"""Batches in which what was observed is forgotten: some 10 s of one instance at 20 ms a batch."""

MOST_SURPRISE = 0.2
"""Log ratio by which one tick may differ from the factor, more counts as this: three times the 6.5 % by which
a run of an instance differs. A model that is off by 1.5 is still learned within ten ticks."""

STEP = math.log(1.03)
"""Quantum of factors: half the scatter of one run."""

HYSTERESIS = 0.75
"""A quantum is left once the value is this many quanta away from it; 0.5 would have none."""


class Factor(NamedTuple):
    """One factor: its logarithm, the batches that speak for it, and the quantum in use."""

    log: float = 0.0
    seen: float = 0.0
    step: int = 0

    def updated(self, log_ratio: float, batches: int) -> Factor:
        """The factor after `batches` more, whose mean log of observed over predicted is `log_ratio`."""
        surprise = min(max(log_ratio - self.log, -MOST_SURPRISE), MOST_SURPRISE)
        log = self.log + batches / (PRIOR_BATCHES + batches + self.seen) * surprise
        log = min(max(log, LOG_LEAST), LOG_MOST)
        return Factor(log, min(self.seen + batches, MEMORY_BATCHES), _quantum(log / STEP, self.step))

    @property
    def value(self) -> float:
        """The quantised factor."""
        return min(max(math.exp(self.step * STEP), LEAST), MOST)


class Correction(NamedTuple):
    """What is known of one function. `tag` names the times that it corrects: of others it knows nothing."""

    tag: str
    device: Factor = Factor()
    pace: Factor = Factor()
    spread_step: int = SPREAD_STEPS

    @property
    def spread(self) -> float:
        """Quantised share, in logarithms, that is left of the interval's upper half, in [0, 1]."""
        return self.spread_step / SPREAD_STEPS

    def updated(self, plain: ServiceTimes, most_batch: int, instances: Iterable[InstanceView]) -> Correction:
        """After one tick of the function's instances; those without batches say nothing.

        Args:
            plain: the prediction. most_batch: largest batch of the function.
        """
        device = pace = (0.0, 0)
        for one in instances:
            if one.batches <= 0 or one.requests <= 0:
                continue
            batch = min(one.requests / one.batches, float(most_batch))
            at = batch_times(plain, one.config.sm_pct, most_batch)
            pace_ms = at_mean_batch(at.pace_ms, batch)
            if plain.gate is not None:
                pace_ms = float(plain.latency_ms(one.config.sm_pct, one.config.quota_pct, batch))
            device = _add(device, one.device_ms, at_mean_batch(at.device_ms, batch), one.batches)
            pace = _add(pace, one.run_ms, pace_ms, one.batches)
        new_device, new_pace = (
            factor if batches == 0 else factor.updated(total / batches, batches)
            for factor, (total, batches) in ((self.device, device), (self.pace, pace))
        )
        spread = math.sqrt(PRIOR_BATCHES / (PRIOR_BATCHES + new_pace.seen))
        return Correction(self.tag, new_device, new_pace, _quantum(spread * SPREAD_STEPS, self.spread_step))

    def to_state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "tag": self.tag,
            "device": [self.device.log, self.device.seen, self.device.step],
            "pace": [self.pace.log, self.pace.seen, self.pace.step],
            "spread_step": self.spread_step,
        }

    @staticmethod
    def of_state(state: Mapping[str, Any]) -> Correction:
        """From JSON."""
        return Correction(
            state["tag"], Factor(*state["device"]), Factor(*state["pace"]), state["spread_step"]
        )


def tag_of(plain: ServiceTimes) -> str:
    """What a correction belongs to: the network and where its times are from."""
    return f"{plain.network} of {plain.source}"


def _add(
    total: tuple[float, int], observed_ms: float | None, predicted_ms: float, batches: int
) -> tuple[float, int]:
    if observed_ms is None or not (math.isfinite(observed_ms) and observed_ms > 0):
        return total
    # Instances differ, so one of them cannot pull the mean of all beyond what the rest would bear.
    ratio = min(max(math.log(observed_ms / predicted_ms), LOG_LEAST), LOG_MOST)
    return total[0] + batches * ratio, total[1] + batches


def _quantum(value: float, step: int) -> int:
    return round(value) if abs(value - step) > HYSTERESIS else step
