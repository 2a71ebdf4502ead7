"""A simulated cluster behind the same two doors as a live one: `observe` and `apply`.

It turns decisions into changes of the arrays of `scaler.replay.world`, each with the delay that it has in
reality, lets the event loop run between them, and keeps account of what was set aside and used.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rapp.types import FloatArray, ResourceConfig
from scaler.core.decision import Action, Decision, Drain, Resize, Start
from scaler.core.observation import FunctionView, GpuView, InstanceView, Observation, Phase
from scaler.packing import TOLERANCE
from scaler.replay import events
from scaler.replay.account import Account, Placed
from scaler.replay.physics import Physics, ServedFunction
from scaler.replay.world import ABSENT, STARTING, World, empty_world

ROWS_PER_GPU = 100
"""Rows that a GPU can have: SM partitions are at least 1 %."""

SLOTS = 1024
"""Instances that there can be at once."""


class Cluster:
    """Functions on GPUs under a trace.

    Args:
        functions: those served.
        arrivals: by function, sorted arrival times, s.
        gpus: those there are.
        physics: how the hardware behaves.
        seed: of the noise.
    """

    def __init__(
        self,
        functions: Sequence[ServedFunction],
        arrivals: Mapping[str, FloatArray],
        gpus: Sequence[GpuView],
        physics: Physics,
        seed: int,
    ) -> None:
        self.functions = {function.name: function for function in functions}
        self.gpus = {gpu.id: gpu for gpu in gpus}
        self.physics = physics
        self.account = Account()
        self.instances: dict[str, Placed] = {}
        self.ended: list[Placed] = []
        self._lost: list[Placed] = []
        self._index = {name: number for number, name in enumerate(self.functions)}
        self._gpu_number = {gpu.id: number for number, gpu in enumerate(gpus)}
        times, owner = _merged([arrivals[name] for name in self.functions])
        run, process = np.random.default_rng(seed).spawn(2)
        self._process = process
        sigma = physics.run_noise
        self.world: World = empty_world(
            times,
            owner,
            queue_limit=np.array([function.queue_limit for function in functions], dtype=np.int64),
            most_delay_s=np.array([function.most_delay_s for function in functions]),
            objective_s=np.array([function.slo_s for function in functions]),
            row_gpu=np.repeat(np.arange(len(gpus)), ROWS_PER_GPU),
            gpus=len(gpus),
            instances=SLOTS,
            most_batch=physics.most_batch,
            noise=np.exp(run.normal(-(sigma**2) / 2, sigma, 1 << 16)) if sigma > 0 else np.ones(1),
            beside=physics.beside,
        )
        self._free_slots = list(range(SLOTS))[::-1]
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._orders = 0
        self._seen = {name: np.zeros(5, dtype=np.int64) for name in self.functions}
        self._seen_requests = 0

    @property
    def now_s(self) -> float:
        """Time of the simulation, s."""
        return float(self.world.now[0])

    def run_until(self, end_s: float) -> None:
        """Let requests come and instances work up to `end_s`, with the changes that fall due before."""
        while self._due and self._due[0][0] <= end_s:
            due, _, change = heapq.heappop(self._due)
            self._run(max(due, self.now_s))
            change()
        self._run(end_s)

    def _run(self, end_s: float) -> None:
        on = len({placed.gpu for placed in self.instances.values()})
        self.account.gpu_on_seconds += on * (end_s - self.now_s)
        events.run_until(self.world, end_s)
        for placed in [one for one in self.instances.values() if self.world.stage[one.slot] == ABSENT]:
            self._end(placed)

    # --- what a controller sees ---------------------------------------------------------------------------

    def observe(self) -> Observation:
        """What a live system could see now; counts are since the last call."""
        instances = tuple(self._view(placed) for placed in self.instances.values())
        lost = tuple(self._view(placed) for placed in self._lost)
        self._lost.clear()
        functions = {name: self._function_view(name) for name in self.functions}
        self._seen_requests = int(self.world.cursor[0])
        return Observation(self.now_s, functions, instances + lost, tuple(self.gpus.values()))

    def _function_view(self, name: str) -> FunctionView:
        w, f = self.world, self._index[name]
        total = np.array([w.arrived[f], w.served[f], w.late[f], w.refused[f], w.lost[f]])
        arrivals, completed, late, refused, lost = (total - self._seen[name]).tolist()
        self._seen[name] = total
        in_flight = sum(
            int(w.carried_count[placed.slot]) for placed in self.instances.values() if placed.function == name
        )
        return FunctionView(
            arrivals,
            int(w.queue_length[f]),
            in_flight,
            completed,
            late,
            refused + lost,
            self._latency_ms(name),
        )

    def _latency_ms(self, name: str) -> float | None:
        """The quantile over the latest requests that are answered: what a gateway's histogram shows."""
        w, f = self.world, self._index[name]
        first, last = max(self._seen_requests - 256, 0), int(w.cursor[0])
        recent = w.latency[first:last][w.function_of[first:last] == f]
        recent = recent[np.isfinite(recent)]
        if len(recent) == 0:
            return None
        return 1e3 * float(np.quantile(recent, self.functions[name].slo_quantile))

    def _view(self, placed: Placed) -> InstanceView:
        w, slot = self.world, placed.slot
        batches = requests = 0
        run_ms = device_ms = None
        if placed.ended_s is None:
            batches = int(w.batches[slot]) - placed.seen_batches
            requests = int(w.requests[slot]) - placed.seen_requests
            executing = float(w.executing[slot]) - placed.seen_executing_s
            placed.seen_batches += batches
            placed.seen_requests += requests
            device = float(w.device_used[slot]) - placed.seen_device_s
            placed.seen_executing_s += executing
            placed.seen_device_s += device
            if batches:
                run_ms, device_ms = 1e3 * executing / batches, 1e3 * device / batches
        phase, since = Phase.READY, placed.ready_s
        if placed.lost_s is not None:
            phase, since = Phase.LOST, placed.lost_s
        elif placed.draining_s is not None:
            phase, since = Phase.DRAINING, placed.draining_s
        elif w.stage[slot] == STARTING:
            phase, since = Phase.STARTING, placed.started_s
        return InstanceView(
            placed.id, placed.function, placed.gpu, placed.row, placed.config, phase, since,
            batches, requests, run_ms, device_ms,
        )  # fmt: skip

    # --- what a controller does ---------------------------------------------------------------------------

    def apply(self, decision: Decision) -> list[tuple[str, str]]:
        """Make the changes in their order; those that cannot be made are refused: (id, why)."""
        refused = []
        for action in decision.actions:
            why = self._apply(action)
            if why is not None:
                refused.append((action.id, why))
                self.account.rejected.append((self.now_s, action.id, why))
        return refused

    def _apply(self, action: Action) -> str | None:
        if isinstance(action, Start):
            return self._start(action)
        placed = self.instances.get(action.id)
        if placed is None:
            return "there is no such instance"
        if isinstance(action, Drain):
            if placed.draining_s is None:
                placed.draining_s = self.now_s
                self.account.drains += 1
                events.drain(self.world, placed.slot)
                if self.world.stage[placed.slot] == ABSENT:
                    self._end(placed)
            return None
        return self._resize(placed, action)

    def _start(self, action: Start) -> str | None:
        function = self.functions.get(action.function)
        if function is None:
            return f"there is no function {action.function}"
        if action.id in self.instances:
            return "there is an instance of this name"
        why = self._no_room(action.gpu, action.row, action.config)
        if why is not None:
            return why
        if action.config.batch > self.physics.most_batch:
            return f"batch {action.config.batch} is above {self.physics.most_batch}"
        if not self._free_slots:
            return f"there are {SLOTS} instances"
        slot, now = self._free_slots.pop(), self.now_s
        placed = Placed(
            action.id, action.function, action.gpu, action.row, slot, action.config, now,
            now + function.cold_start_s, accounted_s=now,
        )  # fmt: skip
        w = self.world
        times = function.times(action.config.sm_pct)
        sigma = self.physics.process_noise
        factor = float(np.exp(self._process.normal(-(sigma**2) / 2, sigma))) if sigma > 0 else 1.0
        columns = self.physics.most_batch + 1
        w.device[slot] = factor * times.device_s[:columns]
        w.pace[slot] = factor * times.pace_s[:columns]
        w.host[slot] = times.host_s[:columns]
        w.function[slot] = self._index[action.function]
        w.row[slot] = self._gpu_number[action.gpu] * ROWS_PER_GPU + action.row
        w.batch[slot] = action.config.batch
        w.quota[slot] = action.config.quota_pct / 100
        w.window[slot] = self.physics.window_s
        events.start(w, slot, placed.ready_s)
        self.instances[action.id] = placed
        self.account.starts += 1
        return None

    def _resize(self, placed: Placed, action: Resize) -> str | None:
        config = ResourceConfig(placed.config.sm_pct, action.quota_pct, action.batch)
        why = self._no_room(placed.gpu, placed.row, config, besides=placed.id)
        if why is not None:
            return why
        if action.batch > self.physics.most_batch:
            return f"batch {action.batch} is above {self.physics.most_batch}"
        self._charge(placed)
        placed.config = config
        self.account.resizes += 1

        def change() -> None:
            if placed.ended_s is None:
                self.world.batch[placed.slot] = config.batch
                events.set_quota(self.world, placed.slot, config.quota_pct / 100)

        self._later(self.physics.change_delay_s, change)
        return None

    def _no_room(self, gpu: str, row: int, config: ResourceConfig, besides: str | None = None) -> str | None:
        if gpu not in self.gpus:
            return f"there is no GPU {gpu}"
        if not 0 <= row < ROWS_PER_GPU:
            return f"there is no row {row}"
        there = [one for one in self.instances.values() if one.gpu == gpu and one.id != besides]
        rows = {one.row: one.config.sm_pct for one in there}
        if rows.get(row, config.sm_pct) != config.sm_pct:
            return f"the row has SM {rows[row]:g} %"
        rows[row] = config.sm_pct
        if sum(rows.values()) > 100 + TOLERANCE:
            return f"the rows of {gpu} would have {sum(rows.values()):g} % of its SMs"
        quota = config.quota_pct + sum(one.config.quota_pct for one in there if one.row == row)
        return f"the row would have {quota:g} % of its time" if quota > 100 + TOLERANCE else None

    def _later(self, delay_s: float, change: Callable[[], None]) -> None:
        self._orders += 1
        heapq.heappush(self._due, (self.now_s + delay_s, self._orders, change))

    # --- what goes wrong ----------------------------------------------------------------------------------

    def crash(self, instance: str) -> None:
        """Kill an instance; what it carried is tried again."""
        placed = self.instances[instance]
        placed.lost_s = self.now_s
        events.stop(self.world, placed.slot)
        self._end(placed)
        self._lost.append(placed)

    def lose_gpu(self, gpu: str) -> None:
        """Take a GPU away with all that is on it."""
        for placed in [one for one in self.instances.values() if one.gpu == gpu]:
            self.crash(placed.id)
        del self.gpus[gpu]

    # --- accounts -----------------------------------------------------------------------------------------

    def settle(self) -> Account:
        """The account up to now, to be asked for at the end: host time of what still runs is added once."""
        for placed in self.instances.values():
            self._charge(placed)
            host = self.account.host_core_seconds
            host[placed.function] = host.get(placed.function, 0.0) + float(self.world.host_used[placed.slot])
        return self.account

    def _charge(self, placed: Placed) -> None:
        end = self.now_s if placed.ended_s is None else placed.ended_s
        spent = placed.config.gpu_share * (end - placed.accounted_s)
        placed.gpu_seconds += spent
        placed.accounted_s = end
        self.account.gpu_seconds[placed.function] = self.account.gpu_seconds.get(placed.function, 0.0) + spent

    def _end(self, placed: Placed) -> None:
        placed.ended_s = float(self.world.stopped_at[placed.slot])
        self._charge(placed)
        host = self.account.host_core_seconds
        host[placed.function] = host.get(placed.function, 0.0) + float(self.world.host_used[placed.slot])
        del self.instances[placed.id]
        self.ended.append(placed)
        self._free_slots.append(placed.slot)


def _merged(arrivals: Sequence[FloatArray]) -> tuple[FloatArray, np.ndarray]:
    """All arrivals in order, and the number of the function of each."""
    times = np.concatenate([np.asarray(one, dtype=np.float64) for one in arrivals] or [np.empty(0)])
    owner = np.repeat(np.arange(len(arrivals)), [len(one) for one in arrivals])
    order = np.argsort(times, kind="stable")
    return times[order], owner[order]
