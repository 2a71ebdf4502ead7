"""The queue and the room of the Ray backend, without Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.types import ResourceConfig
from scaler.backends.ray_placement import Room, Seat
from scaler.backends.ray_queue import DeadlineError, FailedError, FunctionQueue, RefusedError
from scaler.backends.ray_report import InstanceReport, Marks, Reader, Report
from scaler.core.observation import FunctionView, GpuView, InstanceView, Phase


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def tensors(value: int) -> dict[str, np.ndarray]:
    return {"x": np.array([value])}


def go_on() -> bool:
    return False


def asked(queue: FunctionQueue, *values: int, timeout_s: float = 10.0) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(queue.ask(tensors(value), timeout_s)) for value in values]


def test_batches_are_taken_in_order_and_answered_each_with_its_own():
    async def test() -> None:
        queue = FunctionQueue("f", 10, 0.0, 1000.0, 0.5)
        tasks = asked(queue, 0, 1, 2, 3, 4)
        await asyncio.sleep(0)
        first, rest = await queue.take(lambda: 2, go_on), await queue.take(lambda: 8, go_on)
        assert [int(one.inputs["x"][0]) for one in (*first, *rest)] == [0, 1, 2, 3, 4]
        assert queue.view(0).in_flight == 5
        queue.answered(rest, [{"y": one.inputs["x"] * 10} for one in rest[:2]] + ["is wrong"])
        queue.answered(first, [{"y": one.inputs["x"] * 10} for one in first])
        assert [int((await task)["y"][0]) for task in tasks[:4]] == [0, 10, 20, 30]
        with pytest.raises(FailedError, match="f: is wrong"):
            await tasks[4]
        view = queue.view(0)
        assert (view.arrivals, view.completed, view.refused, view.in_flight) == (5, 4, 1, 0)
        assert view.latency_ms is not None
        assert queue.view(4).latency_ms is None
        assert queue.view(None).latency_ms is None

    run(test())


def test_what_an_instance_lost_comes_first_and_thrice_at_most():
    async def test() -> None:
        queue = FunctionQueue("f", 10, 0.0, 1000.0, 0.99)
        tasks = asked(queue, 0, 1, 2, 3)
        await asyncio.sleep(0)
        for _ in range(2):
            lost = await queue.take(lambda: 2, go_on)
            assert [int(one.inputs["x"][0]) for one in lost] == [0, 1]
            queue.give_back(lost)
        queue.give_back(await queue.take(lambda: 1, go_on))
        with pytest.raises(FailedError, match="3 instances were lost"):
            await tasks[0]
        left = await queue.take(lambda: 8, go_on)
        assert [int(one.inputs["x"][0]) for one in left] == [1, 2, 3]
        assert queue.view(0).in_flight == 3
        for task in tasks:
            task.cancel()

    run(test())


def test_full_and_too_late():
    async def test() -> None:
        queue = FunctionQueue("f", 2, 0.0, 1000.0, 0.99)
        tasks = asked(queue, 0, 1, timeout_s=0.05)
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="2 requests wait"):
            await queue.ask(tensors(2), 1.0)
        taken = await queue.take(lambda: 1, go_on)
        for task in tasks:
            with pytest.raises(DeadlineError, match="within 50 ms"):
                await task
        left = asked(queue, 4)
        await asyncio.sleep(0)
        left[0].cancel()
        await asyncio.sleep(0.01)
        assert queue.view(0).queue == 0, "who went away does not wait"
        # An answer that comes later is nobody's.
        queue.answered(taken, [tensors(0)])
        view = queue.view(0)
        assert (view.arrivals, view.completed, view.refused, view.queue, view.in_flight) == (4, 0, 4, 0, 0)

    run(test())


def test_a_batch_may_wait_to_fill_and_a_change_of_batch_is_seen():
    async def test() -> None:
        queue = FunctionQueue("f", 10, 0.2, 1000.0, 0.99)
        tasks = asked(queue, 0)
        begun_s, batch = time.monotonic(), 2
        assert len(await queue.take(lambda: batch, go_on)) == 1
        assert 0.15 < time.monotonic() - begun_s < 1
        tasks += asked(queue, 1)
        taking = asyncio.create_task(queue.take(lambda: batch, go_on))
        await asyncio.sleep(0.01)
        assert not taking.done()
        batch = 1
        queue.notify()
        assert len(await asyncio.wait_for(taking, 0.15)) == 1
        for task in tasks:
            task.cancel()

    run(test())


def test_who_drains_takes_nothing():
    async def test() -> None:
        queue = FunctionQueue("f", 10, 0.0, 1000.0, 0.99)
        stopped = False
        taking = asyncio.create_task(queue.take(lambda: 1, lambda: stopped))
        await asyncio.sleep(0)
        stopped = True
        queue.notify()
        assert await taking == []

    run(test())


NODE = Room(GpuView("node", 1000.0, 4.0), 4)
GPU = Room(GpuView("gpu", 1000.0, 4.0), None)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([25.0, 50.0, 75.0, 100.0]), st.floats(1, 100))))
def test_rows_of_a_node_never_share_a_core_nor_exceed_their_time(wanted):
    seats: list[Seat] = []
    for row, sm_pct, quota_pct in wanted:
        config = ResourceConfig(sm_pct, quota_pct, 1)
        if NODE.why_not(seats, row, config, 8, 100.0) is None:
            seats.append(Seat(row, config, 100.0, NODE.cores_for(seats, row, sm_pct)))
    rows = {seat.row: seat for seat in seats}
    cores = [core for seat in rows.values() for core in seat.cores]
    assert len(cores) == len(set(cores)) <= 4
    assert set(cores) <= set(range(4))
    for row, seat in rows.items():
        assert len(seat.cores) == seat.config.sm_pct / 25
        together = [one for one in seats if one.row == row]
        assert {one.cores for one in together} == {seat.cores}
        assert sum(one.config.quota_pct for one in together) <= 100 + 1e-3
    assert len(seats) <= 10, "100 MiB each of 1,000"


@pytest.mark.parametrize(
    ("room", "row", "config", "memory_mib", "message"),
    [
        (NODE, 0, ResourceConfig(40.0, 10.0, 1), 1.0, "not a whole number of cores"),
        (NODE, 0, ResourceConfig(25.0, 10.0, 1), 1.0, "row 0 has SM 50 %"),
        (NODE, 1, ResourceConfig(75.0, 10.0, 1), 1.0, "125 % of its SMs"),
        (NODE, 0, ResourceConfig(50.0, 41.0, 1), 1.0, "101 % of its time"),
        (NODE, 1, ResourceConfig(50.0, 10.0, 9), 1.0, "batch 9"),
        (NODE, 100, ResourceConfig(50.0, 10.0, 1), 1.0, "no row 100"),
        (NODE, 1, ResourceConfig(50.0, 10.0, 1), 901.0, "has 1,000 MiB, not 1,001"),
        (GPU, 1, ResourceConfig(51.0, 10.0, 1), 1.0, "101 % of its SMs"),
    ],
)
def test_why_there_is_no_room(room, row, config, memory_mib, message):
    there = [Seat(0, ResourceConfig(50.0, 60.0, 1), 100.0, (0, 1))]
    assert message in room.why_not(there, row, config, 8, memory_mib)
    assert room.why_not(there, 0, ResourceConfig(50.0, 40.0, 1), 8, 900.0) is None
    assert GPU.cores_for(there, 1, 33.0) == ()


def report(
    router: str, arrivals: int, batches: int, *, name: str = "i", started_s: float = 1.0, lost: int = 0
):
    config = ResourceConfig(50.0, 50.0, 2)
    view = InstanceView(name, "f", "node", 0, config, Phase.READY, 1.0, batches, 2 * batches)
    one = InstanceReport(view, started_s, batches * 0.01, batches * 0.005)
    counts = FunctionView(arrivals, 3, 1, arrivals, arrivals // 10, 0, None)
    return Report(router, float(arrivals), {"f": counts}, (one,), (), lost, ())


def test_each_reader_counts_since_its_own_last_look():
    first, second = Reader(), Reader()
    assert first.marks is None
    seen = first.read(report("r", 100, 10))
    assert seen.functions["f"].arrivals is None, "nobody knows over which time they came"
    assert (seen.functions["f"].queue, seen.instances[0].batches, seen.instances[0].run_ms) == (3, 0, None)
    assert first.marks == Marks({"f": 100}, 0)
    seen = first.read(report("r", 120, 14))
    assert (seen.functions["f"].arrivals, seen.functions["f"].late) == (20, 2)
    one = seen.instances[0]
    assert (one.batches, one.requests) == (4, 8)
    assert (one.run_ms, one.device_ms) == (pytest.approx(10), pytest.approx(5))
    assert second.read(report("r", 120, 14)).functions["f"].arrivals is None
    assert first.read(report("r", 150, 14)).functions["f"].arrivals == 30
    assert second.read(report("r", 150, 14)).functions["f"].arrivals == 30


def test_another_instance_of_the_name_and_another_router_begin_anew():
    reader = Reader()
    reader.read(report("r", 100, 10))
    one = reader.read(report("r", 100, 3, started_s=2.0)).instances[0]
    assert one.batches == 3, "all that it did was since the last look"
    seen = reader.read(report("other", 7, 5))
    assert seen.functions["f"].arrivals is None
    assert seen.instances[0].batches == 0
