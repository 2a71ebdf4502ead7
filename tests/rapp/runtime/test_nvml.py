"""GPUs through NVML, against an imitation of pynvml: found by any name, described, judged while measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_fixtures import OTHER_UUID, UUID, FakeGpus
from hypothesis import given
from hypothesis import strategies as st

from rapp.errors import ConfigError, MissingExtraError
from rapp.runtime.claim import GpuClaim
from rapp.runtime.gpu import THROTTLES, ComputeMode, GpuState, disturbance
from rapp.runtime.leftovers import clean_up
from rapp.runtime.nvml import Nvml, NvmlError

QUIET = GpuState(1312, 877, (), 40.0, 150.0, 900.0, 80.0, frozenset({7}))


@pytest.fixture
def library(fake_gpus: FakeGpus) -> Iterator[Nvml]:
    with closing(Nvml()) as library:
        yield library


def test_a_gpu_is_found_by_number_device_name_and_uuid(
    library: Nvml, fake_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus.set(1, uuid=OTHER_UUID, name="NVIDIA A100")
    for which in ("1", "cuda:1", OTHER_UUID, "GPU-ffee", f"cuda:{OTHER_UUID}"):
        assert library.gpu(which).uuid == OTHER_UUID, which
    assert [gpu.uuid for gpu in library.gpus()] == [UUID, OTHER_UUID]
    # A number counts among those that CUDA shows, by number or by UUID.
    for visible in ("1", OTHER_UUID, "GPU-ffee", "1,0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert library.gpu("cuda:0").uuid == OTHER_UUID, visible
    assert library.gpu("cuda:1").uuid == UUID
    assert library.gpu(UUID).uuid == UUID


@pytest.mark.parametrize("which", ["cuda:1", "7", "GPU-123", "cuda:GPU-", "nonsense"])
def test_a_gpu_that_is_not_there_is_an_error_that_names_it(
    library: Nvml, fake_gpus: FakeGpus, which: str
) -> None:
    fake_gpus.set(0)
    if which == "cuda:GPU-":
        fake_gpus.set(1, uuid=OTHER_UUID)  # the beginning of both
    if which == "cuda:1":
        fake_gpus.set(0)
    with pytest.raises(ConfigError, match=f"no GPU {which} here: `nvidia-smi -L`"):
        library.gpu(which)


def test_a_number_beyond_cuda_visible_devices_is_an_error(
    library: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES leaves 1: 0"):
        library.gpu("cuda:1")


def test_info_and_state_are_in_our_units(library: Nvml, fake_gpus: FakeGpus) -> None:
    fake_gpus.set(
        throttle=0x04 | 0x40 | 0x01 | 0x02, power_mw=151500, processes={"11": 100}, mps_processes={"12": 200}
    )
    gpu = library.gpu("cuda:0")
    info = gpu.info()
    assert (info.index, info.uuid, info.name, info.memory_mib) == (0, UUID, "Tesla V100-SXM2-16GB", 16384)
    assert (info.capability, info.compute_mode, info.mig, info.persistence) == (
        (7, 0), ComputeMode.DEFAULT, None, True,
    )  # fmt: skip
    state = gpu.state()
    # What slows nothing down (idle, application clocks) is no throttling.
    assert state == GpuState(
        1312, 877, ("power cap", "hardware thermal limit"), 35, 151.5, 300, 0, frozenset({11, 12})
    )
    assert (gpu.memory_mib(12), gpu.memory_mib(13)) == (200, None)


def test_what_a_gpu_or_an_old_driver_does_not_tell_is_none(library: Nvml, fake_gpus: FakeGpus) -> None:
    fake_gpus.set(
        sm_mhz=None, memory_mhz=None, temperature_c=None, power_mw=None, utilization=None, persistence=None,
        capability=None, new_reasons=False, throttle=0x20, processes=None, mps_processes=None,
    )  # fmt: skip
    gpu = library.gpu("0")
    assert gpu.state() == GpuState(
        None, None, ("software thermal limit",), None, None, 300, None, frozenset()
    )
    assert (gpu.info().capability, gpu.info().persistence) == (None, None)
    assert disturbance(replace(gpu.state(), throttles=()), replace(gpu.state(), throttles=()), ()) is None


def test_a_slice_asks_the_whole_gpu_for_its_clocks(library: Nvml, fake_gpus: FakeGpus) -> None:
    fake_gpus.set(0, mig=1, sm_mhz=1410)
    fake_gpus.set(
        1, uuid="MIG-1", name="NVIDIA A100 MIG 1g.5gb", memory_mib=4864, sm_mhz=None, temperature_c=None
    )
    gpu = library.gpu("cuda:MIG-1")
    assert (gpu.info().index, gpu.info().uuid, gpu.info().memory_mib, gpu.info().mig) == (
        0,
        "MIG-1",
        4864,
        True,
    )
    assert (gpu.state().sm_clock_mhz, gpu.state().temperature_c) == (1410, 35)


def test_a_failing_library_is_a_typed_error(library: Nvml, fake_gpus: FakeGpus) -> None:
    gpu = library.gpu("0")
    fake_gpus.fail(15)
    with pytest.raises(NvmlError, match=r"nvmlDeviceGetPowerUsage.*run nvidia-smi"):
        gpu.state()
    fake_gpus.fail(9)
    with pytest.raises(NvmlError, match=r"nvmlInit.*install the NVIDIA driver"):
        Nvml()


def test_without_pynvml_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtraError, match=r"nvidia-ml-py.*rapp\[gpu\]"):
        Nvml()


class TestDisturbance:
    def test_a_quiet_block_is_none(self) -> None:
        assert disturbance(QUIET, QUIET, {7}) is None

    @given(first=st.integers(200, 3000), last=st.integers(200, 3000))
    def test_a_clock_that_moves_by_more_than_3_percent_of_the_first(self, first: int, last: int) -> None:
        found = disturbance(replace(QUIET, sm_clock_mhz=first), replace(QUIET, sm_clock_mhz=last), {7})
        moved = abs(last - first) * 100 > 3 * first
        assert found == ("clock moved" if moved else None)

    def test_throttling_at_either_end_counts(self) -> None:
        hot = replace(QUIET, throttles=("power cap",))
        for before, after in ((hot, QUIET), (QUIET, hot)):
            assert disturbance(before, after, {7}) == "throttled: power cap"

    def test_a_process_that_nobody_knows(self) -> None:
        crowded = replace(QUIET, pids=frozenset({7, 31, 8}))
        assert disturbance(QUIET, crowded, {7}) == "other process: pid 8, 31"
        assert disturbance(crowded, QUIET, {7, 8, 31}) is None

    def test_the_masks_are_those_of_nvml(self) -> None:
        assert sum(THROTTLES) == 0xEC  # 4, 8, 32, 64, 128 of nvmlClocksEventReasons


class TestClocks:
    def test_without_permission_nothing_is_locked(self, library: Nvml) -> None:
        assert library.gpu("0").lock_clocks() is None

    def test_they_are_held_at_the_default_and_let_go(self, library: Nvml, fake_gpus: FakeGpus) -> None:
        fake_gpus.set(root=True, default_mhz=1290)
        gpu = library.gpu("0")
        assert gpu.lock_clocks() == 1290
        assert fake_gpus.read()["gpus"][0]["locked"] == [1290, 1290]
        gpu.reset_clocks()
        assert fake_gpus.read()["gpus"][0]["locked"] is None

    def test_a_killed_process_s_clocks_are_let_go_by_the_next_start(
        self, fake_gpus: FakeGpus, claims: Path
    ) -> None:
        fake_gpus.set(root=True, locked=[1290, 1290])
        code = f"import os; from rapp.runtime.claim import GpuClaim; claim = GpuClaim('{UUID}')\n"
        code += "claim.note(clocks_locked=True); os.kill(os.getpid(), 9)"
        assert subprocess.run([sys.executable, "-c", code]).returncode == -9
        (leftover,) = clean_up()
        assert leftover.undone
        assert leftover.text.startswith(f"reset locked clocks on {UUID}, of pid ")
        assert fake_gpus.read()["gpus"][0]["locked"] is None

    def test_what_cannot_be_undone_is_kept_and_said(self, fake_gpus: FakeGpus, claims: Path) -> None:
        pid = os.fork()
        if pid == 0:
            GpuClaim(UUID).note(clocks_locked=True)
            os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
        for _ in range(2):
            (leftover,) = clean_up()
            assert not leftover.undone
            assert leftover.text.startswith(
                f"{UUID}, of pid {pid}: nvmlDeviceResetGpuLockedClocks: Insufficient"
            )
        fake_gpus.set(root=True)
        assert clean_up()[0].undone
        assert clean_up() == []


class TestCoolDown:
    @staticmethod
    def waited_s(
        gpus: FakeGpus, library: Nvml, temperatures_c: list[int | None], start_c: float | None
    ) -> tuple[bool, float]:
        now_s = 0.0

        def sleep(seconds: float) -> None:
            nonlocal now_s
            now_s += seconds
            gpus.set(temperature_c=temperatures_c[min(int(now_s), len(temperatures_c) - 1)])

        gpus.set(temperature_c=temperatures_c[0])
        cool = library.gpu("0").wait_until_cool(start_c, sleep=sleep, clock=lambda: now_s)
        return cool, now_s

    def test_it_waits_until_5_degrees_above_the_start(self, fake_gpus: FakeGpus, library: Nvml) -> None:
        assert self.waited_s(fake_gpus, library, [60, 50, 46, 45], 40) == (True, 3.0)
        assert self.waited_s(fake_gpus, library, [45], 40) == (True, 0.0)

    def test_and_30_seconds_at_most(self, fake_gpus: FakeGpus, library: Nvml) -> None:
        assert self.waited_s(fake_gpus, library, [60], 40) == (False, 30.0)

    def test_not_where_nothing_is_known(self, fake_gpus: FakeGpus, library: Nvml) -> None:
        assert self.waited_s(fake_gpus, library, [None], 40) == (True, 0.0)
        assert self.waited_s(fake_gpus, library, [60], None) == (True, 0.0)
