"""What goes wrong in a replay, and when: crashes, a GPU that is lost, observations that are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from rapp.errors import ConfigError


class Fault(StrEnum):
    """Kinds of disturbances."""

    CRASH = "an instance crashes"
    GPU_LOST = "a GPU is lost"
    BLIND = "observations are missing"
    MODEL = "planned with wrong execution times"


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One disturbance.

    Args:
        at_s: when, s. fault: what. to_s: when it ends, for one that lasts.
        target: the GPU; for a crash None until it happens, then the instance.
    """

    at_s: float
    fault: Fault
    to_s: float | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Chaos:
    """What goes wrong.

    Args:
        crash_every_s: an instance, chosen at random, crashes every so often, s; None: none does.
        crash_at_s: further moments at which one crashes, s.
        lost_gpus: GPUs that are lost: time, s, and id.
        blind: from when to when no function can be observed, s.
        model_factor: factor by which the planner's execution times are wrong; 1: right.

    Raises:
        ConfigError: a value out of its range.
    """

    crash_every_s: float | None = None
    crash_at_s: tuple[float, ...] = ()
    lost_gpus: tuple[tuple[float, str], ...] = ()
    blind: tuple[tuple[float, float], ...] = ()
    model_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.crash_every_s is not None and not 0 < self.crash_every_s < math.inf:
            raise ConfigError(f"crash_every_s is {self.crash_every_s:g}: it must be above 0")
        if not 0 < self.model_factor < math.inf:
            raise ConfigError(f"model_factor is {self.model_factor:g}: it must be above 0")
        for from_s, to_s in self.blind:
            if not 0 <= from_s < to_s < math.inf:
                raise ConfigError(f"observations are missing from {from_s:g} to {to_s:g} s: no such time")
        for at_s in (*self.crash_at_s, *(at_s for at_s, _ in self.lost_gpus)):
            if not 0 <= at_s < math.inf:
                raise ConfigError(f"a crash or loss at {at_s:g} s: it must be 0 or more")

    @property
    def is_quiet(self) -> bool:
        """Whether nothing goes wrong."""
        return self == Chaos()

    def disturbances(self, end_s: float) -> list[Disturbance]:
        """All of them before `end_s`, in the order of time."""
        crashes = list(self.crash_at_s)
        if self.crash_every_s is not None:
            crashes += np.arange(self.crash_every_s, end_s, self.crash_every_s).tolist()
        listed = [Disturbance(at_s, Fault.CRASH) for at_s in crashes]
        listed += [Disturbance(at_s, Fault.GPU_LOST, target=gpu) for at_s, gpu in self.lost_gpus]
        listed += [Disturbance(from_s, Fault.BLIND, to_s) for from_s, to_s in self.blind]
        if self.model_factor != 1:
            listed.append(Disturbance(0.0, Fault.MODEL, target=f"x {self.model_factor:g}"))
        return sorted((one for one in listed if one.at_s < end_s), key=lambda one: one.at_s)

    def is_blind(self, now_s: float) -> bool:
        """Whether functions cannot be observed at this moment."""
        return any(from_s < now_s <= to_s for from_s, to_s in self.blind)

    def check_gpus(self, there: Sequence[str]) -> None:
        """See that the GPUs that are lost are there.

        Raises:
            ConfigError: one is not.
        """
        for _, gpu in self.lost_gpus:
            if gpu not in there:
                known = there[0] if len(there) == 1 else f"{there[0]} to {there[-1]}"
                raise ConfigError(f"no GPU {gpu!r} to lose: there are {known}")
