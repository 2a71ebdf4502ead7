"""A controller over the replay's cluster, on a clock that the tests move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from scaler.backends.simulated import Simulated
from scaler.core.settings import Settings
from scaler.core.step import Core
from scaler.forecast.last_value import LastValue
from scaler.functions import FunctionSpec
from scaler.live.clock import Stopping
from scaler.live.tick import Happening, Tick
from scaler.replay.cluster import Cluster
from scaler.replay.physics import Physics, served_function
from scaler.testing.fleet import gpus, times_of
from scaler.testing.policy_loop import function
from scaler.testing.simple_policy import SimplePolicy

RPS, END_S = 60, 80


class Moved:
    """A clock that waits by moving on; `late_s` is how much too late it wakes up."""

    def __init__(self) -> None:
        self.s, self.late_s = 0.0, 0.0

    def now_s(self) -> float:
        return self.s

    def wait_until(self, when_s: float, stop: Stopping) -> None:
        self.s = max(self.s, when_s + self.late_s)


class Told:
    """Keeps what a controller reports."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.happenings: list[tuple[Happening, str, int]] = []

    def on_tick(self, tick: Tick) -> None:
        self.ticks.append(tick)

    def on_happening(self, what: Happening, detail: str, number: int = 1) -> None:
        self.happenings.append((what, detail, number))

    def happened(self, what: Happening) -> list[str]:
        return [detail for one, detail, _ in self.happenings if one == what]


class After:
    """Set after the controller has asked so often, or when `set` says so."""

    def __init__(self, ticks: int) -> None:
        self.left = ticks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0

    def wait(self, timeout: float | None = None, /) -> bool:
        return self.left < 0


def spec(**given: Any) -> FunctionSpec:
    """A function with one instance at least."""
    return function(min_instances=1, **given)


def core_of(one: FunctionSpec | None = None, **settings: Any) -> Core:
    """A core with the reference policy."""
    one = one or spec()
    return Core([one], {one.name: times_of(one)}, LastValue(), SimplePolicy(), Settings(**settings))


def cluster(there: int = 3, seed: int = 1) -> Cluster:
    """Requests at RPS for END_S."""
    one = spec()
    served = served_function(one, 300.0, times_of(one), 1500.0, one.max_batch)
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / RPS, RPS * (END_S + 10)))
    return Cluster([served], {one.name: arrivals}, gpus(there), Physics(), seed=0)


def simulated(clock: Callable[[], float], **given: Any) -> Simulated:
    """The cluster as a backend on a clock."""
    return Simulated(cluster(**given), clock)
