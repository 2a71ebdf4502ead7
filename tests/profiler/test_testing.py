"""The contract of devices accepts a right one, and tells what is wrong with others."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from profiler.device import Block, DeviceInfo, Failure, MeasureError, NetworkFile
from profiler.testing import DeviceContract
from rapp.errors import ConfigError, ProfileError
from rapp.types import QuotaKind

NETWORK = NetworkFile("net", None)
INFO = DeviceInfo("closed form", None, "none", "fp32", QuotaKind.GPU_TIME, 40.0, None, 0.0, virtual_time=True)


class ClosedFormSession:
    """Batches of 2 ms per SM partition and batch, in virtual time, with one fault or none."""

    def __init__(self, sm_pct: float, fault: str) -> None:
        self._sm_pct, self._fault = sm_pct, fault
        self._batch, self._quota_pct = 0, 100.0
        self.peak_memory_mib: float | None = None
        self.sm_count: int | None = 100 - int(sm_pct) if fault == "fewer SMs" else int(sm_pct)

    def prepare(self, batch: int) -> None:
        if batch < 1 and self._fault != "any batch":
            raise MeasureError(Failure.UNSUPPORTED, f"batch {batch}")
        if self._fault != "keeps its quota":
            self._quota_pct = 100.0
        self._batch = batch
        self.peak_memory_mib = -1.0 if self._fault == "no memory" else 10.0 * batch
        if self._fault != "memory falls":
            self.peak_memory_mib = max(self.peak_memory_mib, 20.0 if self._fault != "no memory" else -1.0)

    def set_quota(self, quota_pct: float) -> None:
        if not (math.isfinite(quota_pct) and 0 < quota_pct <= 100) and self._fault != "any quota":
            raise ConfigError(f"quota_pct is {quota_pct}")
        if self._fault != "no quota":
            self._quota_pct = quota_pct

    def run(self, count: int) -> Block:
        device_ms = np.full(count, 2.0 * self._batch * 100 / self._sm_pct)
        wall_ms = device_ms * 100 / self._quota_pct
        if self._fault == "device above wall":
            device_ms = 1.2 * wall_ms
        if self._fault == "real time":
            time.sleep(float(wall_ms.sum()) / 1e3 if count > 50 else 0)
        if self._fault == "one time":
            wall_ms = wall_ms[:1]
        if self._fault == "zero":
            wall_ms = 0 * wall_ms
        return Block(wall_ms, device_ms)

    def outputs(self) -> list[Any] | None:
        rng = np.random.default_rng(None if self._fault == "any outputs" else 0)
        return [rng.standard_normal((self._batch, 3))]


@dataclass(frozen=True)
class ClosedForm:
    """A right device, but for one fault."""

    fault: str = ""

    @property
    def info(self) -> DeviceInfo:
        return replace(INFO, device="" if self.fault == "nameless" else INFO.device)

    def why_not(self, sm_pct: float) -> str | None:
        return "it has 50 % and 100 %" if sm_pct not in (50, 100) else None

    @contextmanager
    def open(self, network: NetworkFile, sm_pct: float) -> Iterator[ClosedFormSession]:
        why = self.why_not(sm_pct)
        if why and self.fault != "any partition":
            raise MeasureError(Failure.PARTITION, why)
        worker = subprocess.Popen(["sleep", "60"])
        try:
            yield ClosedFormSession(sm_pct, self.fault)
        except BaseException:
            if self.fault == "leaves its worker":
                left_behind.append(worker)
                raise
            end(worker)
            raise
        else:
            end(worker)

    def close(self) -> None:
        if self.fault == "closes once":
            assert not closed, "closed before"
            closed.append(True)


left_behind: list[subprocess.Popen[bytes]] = []
closed: list[bool] = []


def end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()


class Contract(DeviceContract):
    __test__ = False
    partitions = (50.0, 100.0)
    absent = (30.0,)


class TestClosedForm(Contract):
    __test__ = True

    @pytest.fixture
    def device(self):
        return ClosedForm()

    @pytest.fixture
    def network(self):
        return NETWORK


ROW = "test_a_measured_point_is_a_row_of_the_profile_table"
BLOCKS = "test_blocks_hold_positive_times_of_each_batch"
PARTITION = "test_a_partition_can_be_had_or_the_device_says_why_not"
QUOTA = "test_a_quota_takes_effect_at_once_and_can_be_lifted"
ALIKE = "test_sessions_follow_each_other_and_answer_alike"
PEAK = "test_peak_memory_never_falls"
BAD = "test_a_batch_or_quota_that_is_none_is_a_typed_error_and_the_session_goes_on"
LEFT = "test_an_exception_leaves_no_process_behind"
VIRTUAL = "test_virtual_time_does_not_pass"
TWICE = "test_it_can_be_closed_twice"
FAULTS = {
    "nameless": ROW,
    "device above wall": BLOCKS,
    "one time": BLOCKS,
    "zero": BLOCKS,
    "fewer SMs": PARTITION,
    "any partition": PARTITION,
    "no quota": QUOTA,
    "keeps its quota": QUOTA,
    "any outputs": ALIKE,
    "memory falls": PEAK,
    "no memory": PEAK,
    "any batch": BAD,
    "any quota": BAD,
    "leaves its worker": LEFT,
    "real time": VIRTUAL,
    "closes once": TWICE,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contract_finds_a_fault(fault: str) -> None:
    arguments: tuple[object, ...] = () if fault == "closes once" else (NETWORK,)
    test = getattr(Contract(), FAULTS[fault])
    test(ClosedForm(), *arguments)
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception, ProfileError)):
            test(ClosedForm(fault), *arguments)
    finally:
        while left_behind:
            end(left_behind.pop())
