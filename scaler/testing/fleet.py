"""A fleet without requests: instances appear as they are ordered, become ready in time, and drain at once.

For tests and benchmarks of the core and of policies, where the replay's physics would only cost time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rapp.types import ResourceConfig
from scaler.core.decision import Decision, Drain, Resize, Start
from scaler.core.needs import at_mean_batch, batch_times
from scaler.core.observation import FunctionView, GpuView, InstanceView, Observation, Phase
from scaler.functions import FunctionSpec
from scaler.sources.service_times import ServiceTimes


def times_of(function: FunctionSpec, work_ms: float = 8.0, upper: float = 1.2) -> ServiceTimes:
    """Times in closed form: D = work x (0.4 + 0.6 n) / SM share for a batch of n, H = 1.5 ms.

    Args:
        work_ms: D at SM 100 %, batch 1, ms. upper: factor to the upper end of the interval.
    """
    sm_pct = np.arange(5.0, 101.0, 5.0)
    batch = np.unique(np.minimum([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], function.max_batch))
    device = work_ms * (0.4 + 0.6 * batch[None]) * 100.0 / sm_pct[:, None]
    return ServiceTimes(
        network=function.network_name,
        source="closed form",
        sm_pct=sm_pct,
        batch=batch,
        device_ms=device,
        host_ms=np.full_like(device, 1.5),
        upper=np.full_like(device, upper),
        memory_mib=np.full(len(batch), 1500.0),
    )


def gpus(count: int) -> tuple[GpuView, ...]:
    """GPUs of 16 GiB and 8 host cores: V100s of a machine with 64 cores and 8 of them."""
    return tuple(GpuView(f"gpu-{number}", 16_384.0, 8.0) for number in range(count))


class Fleet:
    """Instances on GPUs.

    Args:
        functions: those served. there: the GPUs. times: by function, the prediction.
        off: factor of observed times over it; None: instances report no batches.
        now_s: time at the beginning, s.
    """

    def __init__(
        self,
        functions: Sequence[FunctionSpec],
        there: Sequence[GpuView],
        times: Mapping[str, ServiceTimes],
        off: float | None = None,
        now_s: float = 0.0,
    ) -> None:
        self.functions = {spec.name: spec for spec in functions}
        self.gpus = {gpu.id: gpu for gpu in there}
        self.times, self.off, self.now_s = times, off, now_s
        self.instances: dict[str, InstanceView] = {}
        self._lost: list[InstanceView] = []

    def observe(self, arrivals: Mapping[str, int | None], **view: int) -> Observation:
        """What is seen; `view` holds further fields of every `FunctionView`."""
        functions = {name: FunctionView(count, **view) for name, count in arrivals.items()}
        lost, self._lost = self._lost, []
        listed = tuple(self._reported(one) for one in (*self.instances.values(), *lost))
        return Observation(self.now_s, functions, listed, tuple(self.gpus.values()))

    def apply(self, decision: Decision) -> None:
        """Make the changes."""
        for action in decision.actions:
            if isinstance(action, Start):
                self.add(action.id, action.function, action.gpu, action.row, action.config)
            elif isinstance(action, Resize):
                one = self.instances[action.id]
                config = ResourceConfig(one.config.sm_pct, action.quota_pct, action.batch)
                self.instances[action.id] = replace(one, config=config)
            elif isinstance(action, Drain):
                del self.instances[action.id]

    def add(
        self,
        id_: str,
        function: str,
        gpu: str,
        row: int,
        config: ResourceConfig,
        phase: Phase = Phase.STARTING,
    ) -> None:
        """An instance that is there from now on."""
        if id_ in self.instances:
            raise ValueError(f"{id_} is there already")
        self.instances[id_] = InstanceView(id_, function, gpu, row, config, phase, self.now_s)

    def lose(self, id_: str) -> None:
        """An instance dies; it is reported as lost once."""
        self._lost.append(replace(self.instances.pop(id_), phase=Phase.LOST, since_s=self.now_s))

    def advance(self, dt_s: float) -> None:
        """Let time pass; an instance whose cold start is over is ready."""
        self.now_s += dt_s
        for id_, one in self.instances.items():
            if one.phase == Phase.STARTING and one.function in self.functions:
                ready_s = one.since_s + self.functions[one.function].cold_start_s
                if ready_s <= self.now_s:
                    self.instances[id_] = replace(one, phase=Phase.READY, since_s=ready_s)

    def _reported(self, one: InstanceView) -> InstanceView:
        if self.off is None or one.phase != Phase.READY:
            return one
        spec, batch = self.functions[one.function], (1 + one.config.batch) / 2
        at = batch_times(self.times[one.function], one.config.sm_pct, spec.max_batch)
        device_ms, run_ms = (self.off * at_mean_batch(ms, batch) for ms in (at.device_ms, at.pace_ms))
        batches = max(int(1e3 * one.config.quota_pct / 100 / device_ms), 1)
        return replace(
            one, batches=batches, requests=round(batches * batch), run_ms=run_ms, device_ms=device_ms
        )
