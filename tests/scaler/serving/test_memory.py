"""Memory: what requests and instances leave behind goes, and what is in use stays."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.types import ResourceConfig
from scaler.core.decision import Decision, Drain, Reason, Start
from scaler.functions import FunctionSpec
from scaler.serving.arena import Arena
from scaler.serving.devices import CpuDevice
from scaler.serving.fleet import Fleet
from scaler.serving.memory import Tidying
from scaler.serving.network import ServedNetwork, lay_out

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SLOT_BYTES = 10 * PAGE_BYTES + 64
"""Neighbours share pages, as those of real networks do."""
FILES = Path("/proc/self/fd")


def fill(arena: Arena, slots: list[int], value: int = 1) -> None:
    for slot in slots:
        start, size = slot * arena.slot_bytes, arena.slot_bytes
        arena.memory[start : start + size] = bytes([value]) * size


def burst(arena: Arena, size: int) -> None:
    """So many samples at a time, and then none."""
    slots = arena.take(size)
    assert slots is not None
    fill(arena, slots)
    for slot in slots:
        arena.give_back(slot)


def test_slots_of_a_burst_go_after_an_idle_period() -> None:
    arena = Arena.make(100, SLOT_BYTES)
    for number in range(3):
        burst(arena, 80 + number)
        arena.age()
        assert not arena.release(1 << 30)
        assert arena.resident_bytes >= 80 * SLOT_BYTES, "used in this period"
        burst(arena, 4)
        arena.age()
        burst(arena, 30)
        pieces = 1
        while arena.release(20 * SLOT_BYTES):
            pieces += 1
        assert pieces == 3, "at most twenty slots at a time"
        assert 30 * SLOT_BYTES <= arena.resident_bytes <= 30 * SLOT_BYTES + 2 * PAGE_BYTES * pieces
        assert not arena.release(1 << 30), "nothing is given back twice"
    arena.close()


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(16)), st.integers(0, 16), st.integers(0, 16))
def test_what_is_in_use_keeps_its_values(order: list[int], kept: int, later: int) -> None:
    """Some slots stay in use; some are taken again after the idle period, before what idled is given back."""
    arena = Arena.make(16, 2 * PAGE_BYTES + 1984)
    held = dict.fromkeys(arena.take(16) or [], 1)
    fill(arena, list(held), 1)
    for slot in order[kept:]:
        del held[slot]
        arena.give_back(slot)
    arena.age()
    arena.age()
    again = arena.take(min(later, arena.free_slots)) or []
    fill(arena, again, 2)
    held |= dict.fromkeys(again, 2)
    while arena.release(3 * arena.slot_bytes):
        pass
    for slot, value in held.items():
        start = slot * arena.slot_bytes
        assert set(arena.memory[start : start + arena.slot_bytes]) == {value}
    most_pages = 4 * len(held) + arena.free_slots + 1  # of idle slots the pages between two of them alone
    assert arena.resident_bytes <= most_pages * PAGE_BYTES
    arena.close()


def test_tidying_gives_back_what_idles() -> None:
    failures: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        arenas = [Arena.make(600, SLOT_BYTES) for _ in range(2)]
        for arena in arenas:
            burst(arena, 500)  # 20 MiB: several pieces
        tidying = Tidying(arenas, idle_s=0.02)
        async with asyncio.timeout(10):
            while any(arena.resident_bytes > SLOT_BYTES for arena in arenas):
                await asyncio.sleep(0.01)
        tidying.close()
        for arena in arenas:
            arena.close()
        await asyncio.sleep(0.05)  # a call that came after all would fail on what is closed

    asyncio.run(run())
    assert not failures


def test_nothing_is_kept_of_instances_that_are_gone(tmp_path: Path) -> None:
    inputs, outputs, size = lay_out([("x", "float32", (4,))], [("y", "float32", (4,))])
    network = ServedNetwork(tmp_path / "none.onnx", True, inputs, outputs, size, 10.0)
    spec = FunctionSpec(name="f", network="none.onnx", slo_ms=100)

    async def moves(fleet: Fleet, count: int) -> list[weakref.ref[Any]]:
        instances = []
        for number in range(count):
            config = ResourceConfig(100, 50, 1)
            assert not fleet.apply(Decision((Start(f"i{number}", "f", "cpu:0", 0, config, Reason.POLICY),)))
            instances.append(weakref.ref(fleet.instances[f"i{number}"]))
            fleet.apply(Decision((Drain(f"i{number}", "f", Reason.POLICY),)))
            async with asyncio.timeout(30):
                while fleet.instances:
                    await asyncio.sleep(0.005)
        return instances

    async def run() -> None:
        fleet = Fleet((spec,), {"f": network}, CpuDevice())
        gc.collect()
        open_files = len(list(FILES.iterdir()))
        instances = await moves(fleet, 5)
        gc.collect()
        assert [one for one in instances if one() is not None] == []
        assert not fleet.functions["f"].instances
        assert len(list(FILES.iterdir())) == open_files
        await fleet.close()

    asyncio.run(run())
