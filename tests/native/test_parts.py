"""The bucket and the union of busy intervals, function by function, through ctypes."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import struct
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.runtime.quota import QuotaBlock
from rapp.runtime.quota_layout import FIELDS

SPANS = 32
MS = 1_000_000


class Busy(ctypes.Structure):
    """`struct busy` of busy.h."""

    _fields_ = [("count", ctypes.c_int), ("span", ctypes.c_int64 * 2 * SPANS)]


interval = st.tuples(st.integers(0, 300), st.integers(0, 40)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(intervals=st.lists(interval, max_size=60))
@settings(max_examples=300, deadline=None)
def test_each_moment_counts_once(parts: ctypes.CDLL, intervals: list[tuple[int, int]]) -> None:
    parts.busy_add.restype = ctypes.c_int64
    busy, covered = Busy(), set[int]()
    for start, end in intervals:
        fresh = set(range(start, end)) - covered
        full = busy.count == SPANS
        found = parts.busy_add(ctypes.byref(busy), ctypes.c_int64(start), ctypes.c_int64(end))
        if full:
            return  # from here on the oldest span may be forgotten
        assert found == len(fresh)
        covered |= fresh
        spans = [tuple(span) for span in busy.span[: busy.count]]
        assert spans == sorted(spans)
        assert all(first[1] < second[0] for first, second in itertools.pairwise(spans))


def test_the_oldest_span_is_forgotten(parts: ctypes.CDLL) -> None:
    parts.busy_add.restype = ctypes.c_int64
    busy = Busy()

    def add(start: int, end: int) -> int:
        return int(parts.busy_add(ctypes.byref(busy), ctypes.c_int64(start), ctypes.c_int64(end)))

    for place in range(100):
        assert add(10 * place, 10 * place + 5) == 5
    assert busy.count == SPANS
    assert add(990, 995) == 0
    assert add(0, 5) == 5, "no longer known"
    assert busy.count == SPANS


class Bucket:
    """bucket.c on a block of its own."""

    def __init__(self, parts: ctypes.CDLL, block: QuotaBlock) -> None:
        self._parts, self.block = parts, block
        parts.bucket_balance.restype = ctypes.c_int64
        self._address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(block._map)))

    def balance(self, idle: bool = True) -> int:
        return int(self._parts.bucket_balance(self._address, ctypes.c_bool(idle)))

    def charge(self, used_ns: int) -> None:
        self._parts.bucket_charge(self._address, ctypes.c_int64(used_ns))

    def put(self, name: str, value: int) -> None:
        offset, code = FIELDS[name]
        struct.pack_into(f"<{code}", self.block._map, offset, value)

    def get(self, name: str) -> int:
        offset, code = FIELDS[name]
        return int(struct.unpack_from(f"<{code}", self.block._map, offset)[0])

    def ago(self, tokens_ns: int, elapsed_ns: int) -> None:
        """As if the bucket had held so much so long ago."""
        self.put("tokens_ns", tokens_ns)
        self.put("refilled_ns", time.monotonic_ns() - elapsed_ns)


@pytest.fixture
def bucket(parts: ctypes.CDLL) -> Bucket:
    return Bucket(parts, QuotaBlock.anonymous(quota_pct=20, window_ms=40))


SLACK_NS = 5 * MS  # what may come in while a busy machine runs this test


def test_it_begins_full(bucket: Bucket) -> None:
    assert bucket.balance() == 8 * MS


def test_it_fills_at_the_quotas_rate_and_no_further(bucket: Bucket) -> None:
    bucket.ago(-3 * MS, 50 * MS)
    assert 7 * MS <= bucket.balance() <= 8 * MS
    bucket.ago(-3 * MS, 20 * MS)
    assert MS <= bucket.balance() <= MS + SLACK_NS
    bucket.ago(0, 3600 * 1000 * MS)
    assert bucket.balance() == 8 * MS


def test_what_comes_in_during_a_long_group_is_kept(bucket: Bucket) -> None:
    bucket.ago(8 * MS, 60 * MS)
    assert bucket.balance(idle=False) >= 20 * MS
    bucket.charge(60 * MS)
    assert -40 * MS <= bucket.balance() <= -40 * MS + SLACK_NS
    assert bucket.get("max_debt_ns") == pytest.approx(40 * MS, abs=SLACK_NS)


def test_after_the_charge_it_overflows(bucket: Bucket) -> None:
    bucket.ago(8 * MS, 1000 * MS)
    bucket.charge(5 * MS)
    assert bucket.get("tokens_ns") == 8 * MS
    assert (bucket.get("used_ns"), bucket.get("groups"), bucket.get("max_debt_ns")) == (5 * MS, 1, 0)


def test_a_time_in_the_future_is_one_of_another_life(bucket: Bucket) -> None:
    bucket.ago(-1000 * MS, -3600 * 1000 * MS)
    assert bucket.balance() == 8 * MS


def test_a_changed_quota_counts_for_half_of_the_time_since_the_last_look(bucket: Bucket) -> None:
    bucket.balance()
    bucket.ago(-100 * MS, 100 * MS)
    bucket.block.quota_pct = 60
    assert -60 * MS <= bucket.balance() <= -60 * MS + SLACK_NS
    bucket.ago(-100 * MS, 100 * MS)
    assert -40 * MS <= bucket.balance() <= -40 * MS + SLACK_NS


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_the_lock_of_a_dead_process_is_taken(bucket: Bucket) -> None:
    bucket.put("lock_owner", dead_pid())
    begun = time.monotonic()
    bucket.charge(MS)
    assert time.monotonic() - begun < 0.5
    assert bucket.get("lock_owner") == 0


def test_the_lock_of_a_dead_namesake_is_taken(bucket: Bucket) -> None:
    bucket.put("lock_owner", os.getpid())
    bucket.charge(MS)
    assert bucket.get("lock_owner") == 0


def test_the_lock_of_a_zombie_is_taken_after_a_second(bucket: Bucket) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet waited for
        bucket.put("lock_owner", zombie.pid)
        begun = time.monotonic()
        bucket.charge(MS)
        assert 0.9 < time.monotonic() - begun < 5
    assert bucket.get("lock_owner") == 0


def test_the_lock_of_a_living_process_is_respected(bucket: Bucket) -> None:
    bucket.put("lock_owner", os.getppid())
    threading.Timer(0.2, bucket.put, ("lock_owner", 0)).start()
    begun = time.monotonic()
    bucket.charge(MS)
    assert time.monotonic() - begun >= 0.19


def charge_often(parts: str, path: str, count: int) -> None:
    with QuotaBlock.open(path) as block:
        bucket = Bucket(ctypes.CDLL(parts), block)
        for _ in range(count):
            bucket.charge(1000)
        os._exit(0)  # the view of the block that ctypes holds cannot be released


def test_no_charge_is_lost_between_processes(parts: ctypes.CDLL, block: QuotaBlock) -> None:
    block.quota_pct = 0.0001  # nothing comes in meanwhile
    bucket = Bucket(parts, block)
    before = bucket.balance()
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=charge_often, args=(parts._name, str(block.path), 20_000)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert bucket.get("groups") == 60_000
    assert before - bucket.get("tokens_ns") == pytest.approx(60_000 * 1000, abs=60_000)
