"""The queue under anything that may happen: every sample ends once, and every slot comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.types import ResourceConfig
from scaler.core.observation import Phase
from scaler.functions import FunctionSpec
from scaler.serving.arena import Arena
from scaler.serving.counts import InstanceCounts
from scaler.serving.function import MOST_TRIES, ServedFunction
from scaler.serving.network import ServedNetwork, lay_out
from scaler.serving.requests import Fault, Request, Sample

LIMIT, SLOTS = 6, 64


class Desk:
    """What a function sees of an instance; the test says when its batches end."""

    def __init__(self, batch: int) -> None:
        self.config, self.phase, self.counts = ResourceConfig(100, 100, batch), Phase.READY, InstanceCounts()
        self.carried: Sequence[Sample] = ()
        self.ahead: Sequence[Sample] = ()
        self.sample_s = self.idle_since_s = 0.0
        self.sizes: list[int] = []

    @property
    def is_idle(self) -> bool:
        return not self.carried

    @property
    def may_have_ahead(self) -> bool:
        return bool(self.carried) and not self.ahead

    def run(self, batch: Sequence[Sample]) -> None:
        assert 1 <= len(batch) <= self.config.batch
        self.sizes.append(len(batch))
        for sample in batch:
            assert not sample.running
            sample.running = True
            sample.tries += 1
        if self.carried:
            self.ahead = batch
        else:
            self.carried = batch

    def finish(self) -> Sequence[Sample]:
        batch, self.carried, self.ahead = self.carried, self.ahead, ()
        return batch


def function(*batches: int, delay_ms: float = 0.0) -> tuple[ServedFunction, list[Any]]:
    inputs, outputs, size = lay_out([("x", "float32", (1,))], [("y", "float32", (1,))])
    network = ServedNetwork(Path("net.onnx"), True, inputs, outputs, size, 1.0)
    spec = FunctionSpec(
        name="f", network="net.onnx", slo_ms=1000, queue_limit=LIMIT, max_batch_delay_ms=delay_ms
    )
    made = ServedFunction(spec, network, Arena.make(SLOTS, size), 1000.0)
    desks: list[Any] = [Desk(batch) for batch in batches]
    made.instances += desks
    return made, desks


def ask(served: ServedFunction, samples: int, timeout_s: float = 60.0) -> Request | Fault:
    slots = served.admit(samples)
    if isinstance(slots, Fault):
        return slots
    now_s = time.monotonic()
    request = Request(now_s, now_s + timeout_s, slots)
    served.submit(request)
    return request


def in_loop(body: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await body()

    asyncio.run(run())


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["ask", "finish", "die", "fail", "expire", "leave"]), st.integers(0, 5)),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(operations=OPERATIONS, batches=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_whatever_happens_every_sample_ends_once(operations: Any, batches: list[int]) -> None:
    async def body() -> None:
        served, desks = function(*batches)
        requests: list[Request] = []

        def open_ones() -> list[Request]:
            return [one for one in requests if not one.is_over]

        for name, number in operations:
            desk = desks[number % len(desks)]
            if name == "ask":
                made = ask(served, 1 + number % 3)
                if isinstance(made, Request):
                    requests.append(made)
            elif name == "finish" and desk.carried:
                served.completed(desk, desk.finish())
            elif name == "fail" and desk.carried:
                served.failed(desk.finish(), "it cannot")
            elif name == "die" and desk.carried:
                lost = (*desk.carried, *desk.ahead)
                desk.carried = desk.ahead = ()
                served.lost(lost)
            elif name in ("expire", "leave") and open_ones():
                one = open_ones()[number % len(open_ones())]
                (served._expire if name == "expire" else served.leave)(one)
            # As the route does once it has read the answer.
            for one in requests:
                if one.is_over:
                    served.give_back(one)
            counts = served.counts
            ended = counts.completed + counts.refused + counts.expired + counts.failed
            assert counts.arrivals == ended + sum(len(one.samples) for one in open_ones())
            assert len(served.queue) <= LIMIT + sum(2 * batch for batch in batches)
            # Nobody is idle while somebody waits.
            assert not served.queue or not any(desk.is_idle for desk in desks)
        for _ in range(SLOTS):
            for desk in desks:
                if desk.carried:
                    served.completed(desk, desk.finish())
        assert not open_ones()
        for one in requests:
            served.give_back(one)
        assert served.arena.free_slots == SLOTS

    in_loop(body)


def test_first_come_first_served_in_full_batches() -> None:
    async def body() -> None:
        served, (desk,) = function(2)
        asked = [ask(served, 1) for _ in range(5)]
        order = []
        while desk.carried:
            order += [asked.index(sample.request) for sample in desk.carried]
            served.completed(desk, desk.finish())
        assert order == [0, 1, 2, 3, 4]
        # The first came while nobody else was there.
        assert desk.sizes == [1, 2, 2]

    in_loop(body)


def test_a_part_of_a_batch_waits_for_the_delay_and_a_full_one_does_not() -> None:
    async def body() -> None:
        served, (desk,) = function(3, delay_ms=50)
        begun_s = time.monotonic()
        ask(served, 1)
        assert not desk.carried
        while not desk.carried:
            await asyncio.sleep(0.002)
        assert time.monotonic() - begun_s >= 0.049
        served.completed(desk, desk.finish())
        begun_s = time.monotonic()
        for _ in range(3):
            ask(served, 1)
        assert len(desk.carried) == 3
        assert time.monotonic() - begun_s < 0.04

    in_loop(body)


def test_a_sample_that_kills_its_workers_takes_no_other_with_it_for_ever() -> None:
    async def body() -> None:
        served, (desk,) = function(4)
        first = ask(served, 1)
        good, bad = ask(served, 1), ask(served, 1)
        assert isinstance(first, Request) and isinstance(good, Request) and isinstance(bad, Request)
        served.completed(desk, desk.finish())
        deaths = 0
        while desk.carried:
            if any(sample.request is bad for sample in desk.carried):
                deaths += 1
                batch = (*desk.carried, *desk.ahead)
                desk.carried = desk.ahead = ()
                served.lost(batch)
            else:
                served.completed(desk, desk.finish())
        assert deaths == MOST_TRIES
        assert good.done.result() is None
        fault = bad.done.result()
        assert fault is not None and fault.status == 503

    in_loop(body)


def test_a_network_that_refuses_one_sample_answers_the_others() -> None:
    async def body() -> None:
        served, (desk,) = function(4)
        ask(served, 1)
        asked = [ask(served, 1) for _ in range(3)]
        served.completed(desk, desk.finish())
        while desk.carried:
            if any(sample.request is asked[1] for sample in desk.carried):
                served.failed(desk.finish(), "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : out of bounds")
            else:
                served.completed(desk, desk.finish())
        results = [one.done.result() for one in asked if isinstance(one, Request)]
        assert [None if one is None else int(one.status) for one in results] == [None, 400, None]

    in_loop(body)


def test_instances_that_are_alike_take_turns_and_a_slow_one_waits() -> None:
    """The one that idles longest has most tokens; one that is much slower is left for last."""

    async def scenario() -> None:
        served, desks = function(1, 1, 1)
        for desk, sample_s, since_s in zip(desks, (0.010, 0.011, 0.050), (9.0, 3.0, 1.0), strict=True):
            desk.sample_s, desk.idle_since_s = sample_s, since_s
        for _ in desks:
            ask(served, 1)
        assert [desk.sizes for desk in desks] == [[1], [1], [1]]
        served.queue.clear()
        desks[0].finish()
        desks[1].finish()
        desks[1].idle_since_s = 12.0
        ask(served, 1)
        assert desks[0].carried
        assert not desks[1].carried

    asyncio.run(scenario())
