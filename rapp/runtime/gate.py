"""`QuotaGate`: hold device time down to a share of every window.

The law `gpu_time` is a token bucket. Tokens are device time: they come in at the quota's rate q, up to q W
for a window W, and a run pays with its device time T when that is known, that is afterwards. It may leave a
debt; nothing begins, and no result is handed out, until the debt is repaid. In steady state

    saturated                 L = T / q
    closed loop, idle time s  L = max(T, T / q - min(s, W))

as in `rapp.inference.law`. Whenever the debt is repaid, the device time of the past t ms was q (t + W) at
most.

    with QuotaBlock.open(path) as block:
        gate = QuotaGate(block)
        result = gate.run(lambda: session.run(None, feeds))

Tokens are not lost: the bucket overflows only while nothing runs, so that a run longer than W keeps what is
earned meanwhile until it is charged. And whoever waits, waits for the debt that there was when he came: later
runs of others do not delay him.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from rapp.errors import ConfigError, RappError
from rapp.runtime.quota import QuotaBlock
from rapp.runtime.quota_layout import MILLION, QuotaMode

Result = TypeVar("Result")

# While somebody waits the quota is looked at this often, so that a change takes effect within about it.
NAP_NS = 5_000_000


class GateClosedError(RappError):
    """The gate was closed before a run could begin; nothing ran."""

    def __init__(self) -> None:
        super().__init__("the quota gate was closed before the run could begin")


class QuotaGate:
    """Enforces the quota of one `QuotaBlock` on the runs of this process; threads may share it.

    The bucket is full at first. Quota, window and mode are read at every look: when a run begins and ends,
    and every 5 ms while somebody waits. When between two looks the quota changed is not known: for
    that interval the mean of the old and the new rate is paid in, which is right on average.

    Args:
        block: the quota, and where the statistics go. The gate must be the only one that enforces it, and
            does not close it.
        clock_ns: monotonic clock, ns; for tests.
        sleep_s: sleeps for that many seconds; for tests.

    Raises:
        QuotaBlockError: the block holds what can be no quota. Every method may raise it.
    """

    # Amounts of device time are integers in fs (1e-15 s), millionths x ns: exact, and free of drift.

    def __init__(
        self,
        block: QuotaBlock,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> None:
        self._block, self._clock_ns, self._sleep_s = block, clock_ns, sleep_s
        self._lock = threading.Lock()
        self._closed = False
        self._running = 0
        self._mode, self._quota_ppm, self._window_ns = block.limits()
        self._looked_ns = clock_ns()
        self._level_fs = self._capacity_fs
        self._charged_fs = 0

    def wait(self, timeout_ms: float | None = None) -> bool:
        """Block until the debt that there is now is repaid.

        Args:
            timeout_ms: give up after this, >= 0; None: never.

        Returns:
            Whether it is repaid: False after the time-out, and when the gate is closed.

        Raises:
            ConfigError: a negative time-out.
        """
        if timeout_ms is not None and not timeout_ms >= 0:
            raise ConfigError(f"timeout_ms is {timeout_ms:g}: it must be 0 or more")
        with self._lock:
            self._look()
            owed_fs, begun_ns = self._charged_fs, self._looked_ns
            if self._closed or self._missing_fs(owed_fs) <= 0:
                return not self._closed
        deadline_ns = math.inf if timeout_ms is None else begun_ns + timeout_ms * MILLION
        try:
            return self._nap_until_repaid(owed_fs, deadline_ns)
        finally:
            with self._lock:
                self._block.count_wait(self._clock_ns() - begun_ns)

    def charge(self, device_ms: float) -> None:
        """Take device time out of the bucket, with which the device was busy until now; does not block.

        Raises:
            ConfigError: negative, or not a number.
        """
        cost_fs = _cost_fs(device_ms)
        with self._lock:
            self._look(busy_ns=cost_fs // MILLION)
            self._pay(cost_fs)

    def run(self, work: Callable[[], Result], device_ms: Callable[[], float] | None = None) -> Result:
        """Wait, run, charge, and hold the result until the debt is repaid.

        A result that is held when the gate is closed is handed out at once.

        Args:
            work: returns when the device has finished.
            device_ms: device time of the run just made, ms; None: the wall time of `work`, which is right
                where one thread runs at a time.

        Raises:
            GateClosedError: the gate was closed; nothing ran.
            Exception: whatever `work` or `device_ms` raises, at once; the wall time is charged.
        """
        if not self.wait():
            raise GateClosedError
        with self._lock:
            self._look()
            self._running += 1
            begun_ns = self._looked_ns
        cost_fs: int | None = None
        try:
            result = work()
            if device_ms is not None:
                cost_fs = _cost_fs(device_ms())
        finally:
            with self._lock:
                self._look()
                self._running -= 1
                self._pay((self._looked_ns - begun_ns) * MILLION if cost_fs is None else cost_fs)
        self.wait()
        return result

    @property
    def debt_ms(self) -> float:
        """Device time owed at this moment, ms; 0: none."""
        with self._lock:
            self._look()
            return max(-self._level_fs, 0) / MILLION / MILLION

    def close(self) -> None:
        """Let nothing begin any more, and wake all who wait within about 5 ms; the block stays open."""
        self._closed = True

    def _nap_until_repaid(self, owed_fs: int, deadline_ns: float) -> bool:
        while True:
            with self._lock:
                self._look()
                missing_fs, left_ns = self._missing_fs(owed_fs), deadline_ns - self._looked_ns
                due_ns = -(-missing_fs // self._quota_ppm)  # rounded up
            if self._closed or missing_fs <= 0 or left_ns <= 0:
                return missing_fs <= 0 and not self._closed
            self._sleep_s(min(due_ns, NAP_NS, math.ceil(min(left_ns, NAP_NS))) / 1e9)

    def _look(self, busy_ns: int = 0) -> None:
        """Read clock and block, and pay in what the quota earned since the last look.

        Args:
            busy_ns: how long the device has been busy until now with what no `run` told of.
        """
        now_ns, before_ppm = self._clock_ns(), self._quota_ppm
        self._mode, self._quota_ppm, self._window_ns = self._block.limits()
        elapsed_ns = now_ns - self._looked_ns
        earned_fs = (before_ppm + self._quota_ppm) * elapsed_ns // 2
        self._looked_ns = now_ns
        if self._mode is QuotaMode.OFF:
            self._level_fs = 0
        elif self._running:
            self._level_fs += earned_fs
        else:
            kept_fs = earned_fs * min(busy_ns, elapsed_ns) // max(elapsed_ns, 1)
            self._level_fs = min(self._level_fs + earned_fs - kept_fs, self._capacity_fs) + kept_fs

    def _pay(self, cost_fs: int) -> None:
        self._charged_fs += cost_fs
        if self._mode is QuotaMode.GPU_TIME:
            self._level_fs -= cost_fs
        self._block.count_charge(cost_fs // MILLION, max(-self._level_fs, 0) // MILLION)

    def _missing_fs(self, owed_fs: int) -> int:
        """What must still come in to repay what was charged until `_charged_fs` was `owed_fs`."""
        return owed_fs - self._charged_fs - self._level_fs

    @property
    def _capacity_fs(self) -> int:
        return self._quota_ppm * self._window_ns


def _cost_fs(device_ms: float) -> int:
    if not (math.isfinite(device_ms) and device_ms >= 0):
        raise ConfigError(f"device_ms is {device_ms:g}: a device time is a number, 0 or more")
    return round(device_ms * MILLION * MILLION)
