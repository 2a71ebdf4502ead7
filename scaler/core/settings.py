"""Settings of the core."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rapp.errors import ConfigError
from rapp.recommend import Risk


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may choose.

    Args:
        tick_s: time between observations, s; the first one is taken to cover as much.
        quantile: of the rate at the horizon that is planned for, in [0.5, 1).
        risk: whether to plan with the mean of predicted times or the upper end of their interval.
        most_gpus: most GPUs to use; None: all there are.
        most_actions: most changes in one tick.
        stuck_after: an instance that starts for so many times its cold start is stuck, as is an order that
            nothing came of.
        least_stuck_s: but not before this time, s: a short cold start says little of a loaded machine.
        drain_grace_s: how long an instance that was told to drain may still be reported as live, s.

    Raises:
        ConfigError: a value out of its range.
    """

    tick_s: float = 1.0
    quantile: float = 0.95
    risk: Risk = Risk.UPPER
    most_gpus: int | None = None
    most_actions: int = 200
    stuck_after: float = 3.0
    least_stuck_s: float = 10.0
    drain_grace_s: float = 10.0

    def __post_init__(self) -> None:
        for name, good, must in (
            ("tick_s", 0 < self.tick_s < math.inf, "be above 0"),
            ("quantile", 0.5 <= self.quantile < 1, "lie in [0.5, 1)"),
            ("most_gpus", self.most_gpus is None or self.most_gpus >= 0, "be 0 or more"),
            ("most_actions", self.most_actions >= 1, "be 1 or more"),
            ("stuck_after", 1 <= self.stuck_after < math.inf, "be 1 or more"),
            ("least_stuck_s", 0 <= self.least_stuck_s < math.inf, "be 0 or more"),
            ("drain_grace_s", 0 <= self.drain_grace_s < math.inf, "be 0 or more"),
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must {must}")

    def stuck_s(self, cold_start_s: float) -> float:
        """Time, s, after which an instance with this cold start does not start any more."""
        return max(self.stuck_after * cold_start_s, self.least_stuck_s)
