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
from scaler.core.observation import GpuView, Observation
from scaler.packing import TOLERANCE
from scaler.replay import device, events
from scaler.replay.account import Account, Placed
from scaler.replay.physics import Physics, ServedFunction
from scaler.replay.view import Viewer
from scaler.replay.world import ABSENT, IntArray, World, empty_world

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
        start_s: time at which the clock starts, s; below 0 the cluster is set up before the trace begins.
        beside: factor on the times of a batch of one function beside a busy row of another, (F, F); None:
            that of `physics` for all.
    """

    def __init__(
        self,
        functions: Sequence[ServedFunction],
        arrivals: Mapping[str, FloatArray],
        gpus: Sequence[GpuView],
        physics: Physics,
        seed: int,
        start_s: float = 0.0,
        beside: FloatArray | None = None,
    ) -> None:
        self.functions = {function.name: function for function in functions}
        self.gpus = {gpu.id: gpu for gpu in gpus}
        self.physics = physics
        self.account = Account()
        self.instances: dict[str, Placed] = {}
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
            beside=physics.beside if beside is None else beside,
        )
        # Views of the tables, once: to make one takes longer than to look at it.
        self._clock, self._stage = self.world.now, self.world.stage
        self._clock[0] = start_s
        self._viewer = Viewer(self.world, functions)
        self._free_slots = list(range(SLOTS))[::-1]
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._orders = 0

    @property
    def now_s(self) -> float:
        """Time of the simulation, s."""
        return float(self._clock[0])

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
        for placed in [one for one in self.instances.values() if self._stage[one.slot] == ABSENT]:
            self._end(placed)

    # --- what a controller sees ---------------------------------------------------------------------------

    def observe(self) -> Observation:
        """What a live system could see now; counts are since the last call."""
        functions = self._viewer.functions(self.now_s, self.instances)
        listed = tuple(self._viewer.instance(placed) for placed in (*self.instances.values(), *self._lost))
        self._lost.clear()
        return Observation(self.now_s, functions, listed, tuple(self.gpus.values()))

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
                if self._stage[placed.slot] == ABSENT:
                    self._end(placed)
            return None
        return self._resize(placed, action)

    def _start(self, action: Start) -> str | None:
        function = self.functions.get(action.function)
        if function is None:
            return f"there is no function {action.function}"
        if action.id in self.instances:
            return "there is an instance of this name"
        why = self._no_room(function, action.gpu, action.row, action.config)
        if why is not None:
            return why
        if not self._free_slots:
            return f"there are {SLOTS} instances"
        slot, now = self._free_slots.pop(), self.now_s
        placed = Placed(
            action.id, action.function, action.gpu, action.row, slot, action.config, now,
            now + function.cold_start_s, accounted_s=now,
        )  # fmt: skip
        self._set_up(placed, function)
        events.start(self.world, slot, placed.ready_s)
        self.instances[action.id] = placed
        self.account.starts += 1
        return None

    def _set_up(self, placed: Placed, function: ServedFunction) -> None:
        """Write an instance into its slot, with the factor on its times that its process happens to have."""
        w, slot, config = self.world, placed.slot, placed.config
        times, columns = function.times(config.sm_pct), self.physics.most_batch + 1
        sigma = self.physics.process_noise
        placed.factor = float(np.exp(self._process.normal(-(sigma**2) / 2, sigma))) if sigma > 0 else 1.0
        w.device[slot] = placed.factor * times.device_s[:columns]
        w.pace[slot] = placed.factor * times.pace_s[:columns]
        w.host[slot] = times.host_s[:columns]
        one = w.instance_table[slot]
        one.function = self._index[placed.function]
        one.row = self._gpu_number[placed.gpu] * ROWS_PER_GPU + placed.row
        one.batch = config.batch
        one.quota = config.quota_pct / 100
        one.window = self.physics.window_s
        if function.gated_pace is not None:
            one.quota = 1.0
            self._gate(placed, function)

    def _gate(self, placed: Placed, function: ServedFunction) -> None:
        """Under a quota that gates launches a batch takes as long as it says; device time is not limited."""
        assert function.gated_pace is not None
        config, columns = placed.config, self.physics.most_batch + 1
        pace = function.gated_pace(config.sm_pct, config.quota_pct)
        self.world.pace[placed.slot] = placed.factor * pace[:columns]

    def _resize(self, placed: Placed, action: Resize) -> str | None:
        config = ResourceConfig(placed.config.sm_pct, action.quota_pct, action.batch)
        function = self.functions[placed.function]
        why = self._no_room(function, placed.gpu, placed.row, config, besides=placed.id)
        if why is not None:
            return why
        self.account.charge(placed, self.now_s)
        placed.config = config
        self.account.resizes += 1

        def change() -> None:
            if placed.ended_s is not None:
                return
            self.world.batch[placed.slot] = config.batch
            if function.gated_pace is None:
                device.set_quota(self.world, placed.slot, config.quota_pct / 100)
            else:
                self._gate(placed, function)

        self._orders += 1
        heapq.heappush(self._due, (self.now_s + self.physics.change_delay_s, self._orders, change))
        return None

    def _no_room(
        self, function: ServedFunction, gpu: str, row: int, config: ResourceConfig, besides: str | None = None
    ) -> str | None:
        """Why a configuration cannot be had at a place; what drains keeps its own until it is gone."""
        if gpu not in self.gpus:
            return f"there is no GPU {gpu}"
        if not 0 <= row < ROWS_PER_GPU:
            return f"there is no row {row}"
        if not 1 <= config.batch <= self.physics.most_batch:
            return f"batch {config.batch} is not in 1 to {self.physics.most_batch}"
        there = [one for one in self.instances.values() if one.gpu == gpu and one.id != besides]
        rows = {one.row: one.config.sm_pct for one in there}
        if rows.get(row, config.sm_pct) != config.sm_pct:
            return f"the row has SM {rows[row]:g} %"
        rows[row] = config.sm_pct
        if sum(rows.values()) > 100 + TOLERANCE:
            return f"the rows of {gpu} would have {sum(rows.values()):g} % of its SMs"
        quota = config.quota_pct + sum(one.config.quota_pct for one in there if one.row == row)
        if quota > 100 + TOLERANCE:
            return f"the row would have {quota:g} % of its time"
        memory = function.memory_mib + sum(self.functions[one.function].memory_mib for one in there)
        most = self.gpus[gpu].memory_mib
        return f"{gpu} has {most:g} MiB, not {memory:g}" if memory > most + TOLERANCE else None

    # --- what goes wrong ----------------------------------------------------------------------------------

    def crash(self, instance: str) -> None:
        """Kill an instance; what it carried is tried again."""
        placed = self.instances[instance]
        placed.lost_s = self.now_s
        events.stop(self.world, placed.slot)
        self._end(placed)
        self._lost.append(placed)
        self.account.lost_instances += 1

    def lose_gpu(self, gpu: str) -> None:
        """Take a GPU away with all that is on it."""
        for placed in [one for one in self.instances.values() if one.gpu == gpu]:
            self.crash(placed.id)
        del self.gpus[gpu]

    # --- accounts -----------------------------------------------------------------------------------------

    def open_account(self) -> None:
        """Count costs and changes from now on: what was before belongs to no trace."""
        self.account = Account()
        for placed in self.instances.values():
            placed.accounted_s = self.now_s

    def settle(self) -> Account:
        """The account up to now, to be asked for once: host time of what still runs is added to it."""
        for placed in self.instances.values():
            self.account.charge(placed, self.now_s)
            self.account.charge_host(placed, float(self.world.host_used[placed.slot]))
        return self.account

    def _end(self, placed: Placed) -> None:
        placed.ended_s = float(self.world.stopped_at[placed.slot])
        self.account.charge(placed, placed.ended_s)
        self.account.charge_host(placed, float(self.world.host_used[placed.slot]))
        del self.instances[placed.id]
        self._free_slots.append(placed.slot)


def _merged(arrivals: Sequence[FloatArray]) -> tuple[FloatArray, IntArray]:
    """All arrivals in order, and the number of the function of each."""
    if len(arrivals) == 1:
        return np.asarray(arrivals[0], dtype=np.float64), np.zeros(len(arrivals[0]), dtype=np.int64)
    times = np.concatenate([np.asarray(one, dtype=np.float64) for one in arrivals] or [np.empty(0)])
    owner = np.repeat(np.arange(len(arrivals)), [len(one) for one in arrivals])
    order = np.argsort(times, kind="stable")
    return times[order], owner[order]
