"""A gate on a clock that passes only where a test says so."""

from __future__ import annotations

from collections.abc import Callable

from rapp.runtime.gate import QuotaGate
from rapp.runtime.quota import QuotaBlock

WINDOW_MS = 40.0


class VirtualClock:
    """Time that passes only in `sleep_s` and `pass_ms`; `at` calls a function when its moment has come."""

    def __init__(self) -> None:
        self.now_ns, self.naps_ns = 10**15, []
        self._plans: list[tuple[int, Callable[[], object]]] = []

    def clock_ns(self) -> int:
        return self.now_ns

    def sleep_s(self, seconds: float) -> None:
        self.naps_ns.append(round(seconds * 1e9))
        self.pass_ms(seconds * 1e3)

    def pass_ms(self, duration_ms: float) -> None:
        end_ns = self.now_ns + round(duration_ms * 1e6)
        while self._plans and self._plans[0][0] <= end_ns:
            self.now_ns, action = self._plans.pop(0)
            action()
        self.now_ns = end_ns

    def at(self, after_ms: float, action: Callable[[], object]) -> None:
        self._plans.append((self.now_ns + round(after_ms * 1e6), action))

    def took_ms(self, action: Callable[[], object]) -> float:
        begun_ns = self.now_ns
        action()
        return (self.now_ns - begun_ns) / 1e6


Virtual = tuple[VirtualClock, QuotaBlock, QuotaGate]


def virtual(quota_pct: float, window_ms: float = WINDOW_MS, empty: bool = True) -> Virtual:
    """A gate on virtual time, its bucket empty unless told otherwise."""
    clock, block = VirtualClock(), QuotaBlock.anonymous(quota_pct, window_ms)
    gate = QuotaGate(block, clock_ns=clock.clock_ns, sleep_s=clock.sleep_s)
    if empty:
        gate.charge(quota_pct / 100 * window_ms)
    return clock, block, gate
