"""A controller in a process of its own: appends what it applies to a file, with its name and the time.

python lead_until_killed.py LEASE LOG NAME DURATION_S TICK_S
"""

from __future__ import annotations

import os
import signal
import sys
import time

from scaler.backends.fencing import UNFENCED, Fence
from scaler.core.decision import Decision
from scaler.core.observation import FunctionView, GpuView, Observation
from scaler.core.settings import Settings
from scaler.core.step import Core
from scaler.forecast.last_value import LastValue
from scaler.live.clock import Stop
from scaler.live.controller import Controller
from scaler.live.lease import FileLease
from scaler.testing.fleet import times_of
from scaler.testing.policy_loop import function
from scaler.testing.simple_policy import SimplePolicy


class Writing:
    """A backend without instances: whatever is started is written down, and never seen."""

    def __init__(self, log: str, name: str) -> None:
        self._log, self.name = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), name

    def observe(self) -> Observation:
        # Every tick is one with something to do: requests wait, and what was ordered does not appear.
        gpus = tuple(GpuView(f"gpu-{number}", 16_384.0, 8.0) for number in range(64))
        return Observation(time.monotonic(), {"f": FunctionView(50, queue=50)}, (), gpus)

    def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
        for action in decision.actions:
            fence.check()
            os.write(self._log, f"{time.monotonic():.6f} {self.name} {action.id}\n".encode())
            # Each change takes a while, so that a leader is stopped, if it is, within a decision.
            time.sleep(0.01)
        return [(action.id, "only written down") for action in decision.actions]

    def close(self) -> None:
        os.close(self._log)


def main() -> None:
    lease, log, name, duration_s, tick_s = sys.argv[1:]
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    spec = function(cold_start_s=0.2)
    settings = Settings(tick_s=float(tick_s), least_stuck_s=0.0, stuck_after=1.0)
    core = Core([spec], {"f": times_of(spec)}, LastValue(), SimplePolicy(), settings)
    controller = Controller(
        core, Writing(log, name), apply=True, lease=FileLease(lease, float(duration_s), holder=name)
    )
    print("ready", flush=True)
    controller.run(stop)


if __name__ == "__main__":
    main()
