"""`ServedFunction`: one function's queue, and how its idle instances take from it.

The rule is that of the replay (`scaler.replay.events`): an idle instance takes from the head of the queue, a
full batch at once, a part of one when its first request has waited for the batching delay. What an instance
that died had in work goes back to the head, `MOST_TRIES` times at most.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus

from scaler.core.observation import Phase
from scaler.functions import FunctionSpec
from scaler.serving.arena import Arena
from scaler.serving.counts import FunctionCounts
from scaler.serving.instance import Instance
from scaler.serving.network import ServedNetwork
from scaler.serving.requests import Fault, Request, Sample

MOST_TRIES = 3
"""A sample whose worker died is begun so often at most, as in the replay."""

_ALIKE = 1.25
"""Instances whose samples take at most so many times the fastest one's are taken in turn."""


class ServedFunction:
    """One function.

    Args:
        spec: what functions.yaml says of it. network: what it runs. slo_ms: its objective, ms; None: unknown,
            as it is a multiple of a latency that nobody measured here.
        arena: slots for its samples.
    """

    def __init__(
        self, spec: FunctionSpec, network: ServedNetwork, arena: Arena, slo_ms: float | None
    ) -> None:
        self.spec, self.network, self.arena, self.slo_ms = spec, network, arena, slo_ms
        self.counts = FunctionCounts()
        self.instances: list[Instance] = []
        self.queue: deque[Sample] = deque()
        self._slo_s = math.inf if slo_ms is None else slo_ms / 1e3
        self._delay_s = spec.max_batch_delay_ms / 1e3
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        """Samples that no worker has begun."""
        return len(self.queue) + sum(len(one.ahead) for one in self.instances)

    @property
    def in_flight(self) -> int:
        """Samples in a batch now."""
        return sum(len(one.carried) for one in self.instances)

    @property
    def memory_mib(self) -> float:
        """Memory of one instance, MiB."""
        return self.network.memory_mib if self.spec.memory_mib is None else self.spec.memory_mib

    def admit(self, samples: int) -> list[int] | Fault:
        """Count a request of so many samples that arrived, and take slots for it, or refuse it."""
        self.counts.arrivals += samples
        if self.waiting + samples > self.spec.queue_limit:
            self.counts.refused += samples
            return Fault(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"the queue of {self.spec.name} is full ({self.spec.queue_limit} wait)",
                retry_after_s=1,
            )
        slots = self.arena.take(samples)
        if slots is None:
            self.counts.refused += samples
            return Fault(
                HTTPStatus.TOO_MANY_REQUESTS, f"the memory for requests of {self.spec.name} is full", 1
            )
        return slots

    def submit(self, request: Request) -> None:
        """Queue a request whose slots are filled."""
        request.timer = self._loop.call_later(request.deadline_s - time.monotonic(), self._expire, request)
        self.queue.extend(request.samples)
        self.dispatch()

    def give_back(self, request: Request) -> None:
        """Take back the slots of a request that was answered and read."""
        for sample in request.samples:
            if not sample.running:
                self._free(sample)

    def leave(self, request: Request) -> None:
        """Nobody waits for a request any more; nothing happens if it has its answer."""
        if not request.is_over:
            self.counts.failed += len(request.samples)
            self._leave_queue(request)
            request.end(Fault(HTTPStatus.SERVICE_UNAVAILABLE, "nobody waits for the answer"))

    def dispatch(self) -> None:
        """Give what waits to idle instances."""
        queue = self.queue
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while queue:
            best = self._fastest_idle()
            if best is None:
                self._hand_ahead()
                return
            most = best.config.batch
            if len(queue) < most and self._delay_s > 0:
                wait_s = queue[0].request.arrived_s + self._delay_s - time.monotonic()
                if wait_s > 0:
                    self._timer = self._loop.call_later(wait_s, self.dispatch)
                    return
            best.run(self._batch(most))

    def _fastest_idle(self) -> Instance | None:
        """The idle instance that is fastest; of those about as fast the one that idles longest.

        Its quota has saved up most: or some would run into debt while others' tokens overflow.
        """
        idle = [one for one in self.instances if one.is_idle]
        if not idle:
            return None
        alike_s = _ALIKE * min(one.sample_s for one in idle)
        return min((one for one in idle if one.sample_s <= alike_s), key=lambda one: one.idle_since_s)

    def _hand_ahead(self) -> None:
        """Under saturation, let workers have their next batch before they ask for it.

        They would otherwise pause while the gateway is told of a result and answers. Only if so many wait
        that the next batch of every instance will be full whatever comes: no batch gets smaller by it, and
        no request waits for one instance that another could have taken before.
        """
        ready = [one for one in self.instances if one.phase is Phase.READY]
        if len(self.queue) < sum(one.config.batch for one in ready):
            return
        for one in ready:
            if one.may_have_ahead:
                one.run(self._batch(one.config.batch))

    def _batch(self, most: int) -> list[Sample]:
        queue = self.queue
        batch = [queue.popleft()]
        if not batch[0].alone:
            while len(batch) < most and queue and not queue[0].alone:
                batch.append(queue.popleft())
        return batch

    # --- how a batch ends -----------------------------------------------------------------------------------

    def completed(self, instance: Instance, batch: Sequence[Sample]) -> None:
        """The slots of a batch hold its results."""
        now_s = time.monotonic()
        for sample in batch:
            request = sample.request
            sample.running = False
            if request.is_over:
                self._free(sample)
                continue
            request.left -= 1
            if request.left == 0:
                latency_s = now_s - request.arrived_s
                instance.counts.latency.add(latency_s)
                self.counts.complete(now_s, latency_s, len(request.samples), self._slo_s)
                request.end(None)
        self.dispatch()

    def failed(self, batch: Sequence[Sample], reason: str) -> None:
        """The network refused a batch; one sample of it is to blame, so each is tried by itself."""
        if len(batch) > 1:
            for sample in batch:
                sample.alone = True
            self._requeue(batch)
        else:
            batch[0].running = False
            wrong = "INVALID_ARGUMENT" in reason  # ONNX Runtime's word for values that an operator refuses
            status = HTTPStatus.BAD_REQUEST if wrong else HTTPStatus.INTERNAL_SERVER_ERROR
            self._abandon(batch[0], Fault(status, f"the network fails on this input: {reason}"))
        self.dispatch()

    def lost(self, batch: Sequence[Sample]) -> None:
        """The worker of a batch died; it is tried again, elsewhere or once it is back."""
        again = []
        for sample in batch:
            sample.alone = sample.tries == MOST_TRIES - 1
            if sample.tries < MOST_TRIES or sample.request.is_over:
                again.append(sample)
                continue
            sample.running = False
            reason = f"{MOST_TRIES} workers died with this request: it is not tried again"
            self._abandon(sample, Fault(HTTPStatus.SERVICE_UNAVAILABLE, reason))
        self._requeue(again)
        self.dispatch()

    def _requeue(self, batch: Sequence[Sample]) -> None:
        for sample in reversed(batch):
            sample.running = False
            if sample.request.is_over:
                self._free(sample)
            else:
                self.queue.appendleft(sample)

    def _abandon(self, sample: Sample, fault: Fault) -> None:
        request = sample.request
        if request.is_over:
            self._free(sample)
            return
        self.counts.failed += len(request.samples)
        self._leave_queue(request)
        request.end(fault)

    def _expire(self, request: Request) -> None:
        """Its deadline is over; a sample that runs keeps its slot until its worker has let go of it."""
        if request.is_over:
            return
        where = "in a batch" if any(sample.running for sample in request.samples) else "in the queue"
        self.counts.expired += len(request.samples)
        self._leave_queue(request)
        name = self.spec.name
        request.end(
            Fault(HTTPStatus.SERVICE_UNAVAILABLE, f"the deadline passed {where} of {name}", retry_after_s=1)
        )

    def _free(self, sample: Sample) -> None:
        # Once, whoever comes last: the one who answers, or the worker that still had it.
        if sample.slot >= 0:
            self.arena.give_back(sample.slot)
            sample.slot = -1

    def _leave_queue(self, request: Request) -> None:
        for sample in request.samples:
            if not sample.running and sample in self.queue:
                self.queue.remove(sample)
