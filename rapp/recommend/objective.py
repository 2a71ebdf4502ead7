"""What is asked of a recommendation: an objective, a load, and how careful to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from rapp.errors import ConfigError


class Risk(StrEnum):
    """Which latency has to meet the objective.

    `mean`: the predicted mean. `upper`: the upper end of its 90 % interval, which covers the predictor's
    uncertainty. Neither is a tail: a single batch may take longer than its mean.
    """

    MEAN = "mean"
    UPPER = "upper"


@dataclass(frozen=True, slots=True)
class Objective:
    """A function's latency objective and load.

    Args:
        slo_ms: the longest time from a request's arrival to its answer, ms, > 0.
        rps: requests arriving per second, > 0.
        risk: which latency has to meet it.
        utilisation: the largest share of its time that an instance may be busy, in (0, 1]. What is left is
            the reserve for arrivals that do not come evenly.

    Raises:
        ConfigError: a value out of its range.
    """

    slo_ms: float
    rps: float
    risk: Risk = Risk.MEAN
    utilisation: float = 0.8

    def __post_init__(self) -> None:
        for name in ("slo_ms", "rps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value:g}: it must be a positive number")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"utilisation is {self.utilisation:g}: it must lie in (0, 1]")
        if self.risk not in tuple(Risk):
            raise ConfigError(f"risk is {self.risk!r}: it is one of {', '.join(Risk)}")
