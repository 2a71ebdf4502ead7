"""How the device `cuda` takes a GPU and gives it back, on a machine that is imitated as in test_cuda.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))

from gpu_fixtures import UUID, Machine, machine, small_network, stub_driver

from profiler.device import NetworkFile
from profiler.devices.cuda import BusyGpuError, CudaDevice
from profiler.devices.opening import open_device
from rapp.errors import ConfigError
from rapp.runtime.claim import ClaimError, GpuClaim
from rapp.runtime.mps import MpsError
from rapp.runtime.partition import GpuSetupError
from rapp.runtime.probe import ProbeError
from rapp.runtime.processes import processes_with

__all__ = ["machine", "small_network", "stub_driver"]


@pytest.fixture(autouse=True)
def first_state(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.gpus.reset()
    setting(monkeypatch)


@pytest.fixture
def network(small_network: Path) -> NetworkFile:
    return NetworkFile("network", small_network)


def setting(monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    monkeypatch.setenv("FAKE_ORT", json.dumps(settings))


def open_and_leave(device: CudaDevice, network: NetworkFile, sm_pct: float = 100) -> None:
    with device.open(network, sm_pct):
        pass


def daemons(root: Path) -> set[int]:
    pipes = str(root / UUID[-12:] / "p")
    return processes_with("nvidia-cuda-mps-", "CUDA_MPS_PIPE_DIRECTORY", pipes)


def test_it_is_opened_by_name_with_its_settings(machine: Machine) -> None:
    for name in ("cuda", "cuda:0", f"cuda:{UUID}"):
        device = open_device(name)
        assert device.info.device_uuid == UUID
        device.close()
    with pytest.raises(ConfigError, match="no GPU 1 here"):
        open_device("cuda:1")
    for wrong in ({"idle_ms": -1.0}, {"window_ms": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            CudaDevice(**wrong)  # type: ignore[arg-type]


def test_nothing_on_the_gpu_changes_before_the_first_session(machine: Machine) -> None:
    with CudaDevice() as device:
        assert device.why_not(50) is None
        assert list(machine.claims.iterdir()) == []
        assert daemons(machine.claims) == set()


def test_clocks_are_held_where_that_is_allowed_and_let_go(machine: Machine, network: NetworkFile) -> None:
    machine.gpus.set(root=True)
    with CudaDevice() as device:
        with device.open(network, 100):
            assert machine.gpus.read()["gpus"][0]["locked"] == [1312, 1312]
        assert machine.gpus.read()["gpus"][0]["locked"] == [1312, 1312], "for the whole campaign"
    assert machine.gpus.read()["gpus"][0]["locked"] is None


def test_a_provider_that_does_not_load_ends_the_campaign_and_not_every_point(
    machine: Machine, network: NetworkFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(monkeypatch, provider="broken")
    with CudaDevice() as device:
        with pytest.raises(ProbeError, match="CUDA provider does not load"):
            open_and_leave(device, network)
        assert daemons(machine.claims) == set()
        setting(monkeypatch)
        open_and_leave(device, network)


def test_a_busy_gpu_is_refused(machine: Machine, network: NetworkFile) -> None:
    machine.gpus.set(processes={"999999": 4000})
    with CudaDevice() as device, pytest.raises(BusyGpuError, match=r"GPU 0 .*end them.*pid 999999"):
        open_and_leave(device, network)


def test_one_campaign_at_a_time(machine: Machine, network: NetworkFile) -> None:
    with GpuClaim(UUID), CudaDevice() as device, pytest.raises(ClaimError, match="in use by rapp process"):
        open_and_leave(device, network)


def test_a_daemon_that_does_not_start_is_an_error_with_the_next_action(
    machine: Machine, network: NetworkFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MPS", "refuses")
    with CudaDevice() as device, pytest.raises(MpsError, match=r"already running.*rapp doctor --gpu"):
        open_and_leave(device, network, 50)


def test_without_mps_the_whole_gpu_can_be_measured_and_partitions_say_why_not(
    machine: Machine, network: NetworkFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(os.environ["PATH"].split(os.pathsep)[1:]))
    with CudaDevice() as device:
        assert "nvidia-cuda-mps-control" in str(device.why_not(50))
        assert device.info.software["mps"] == "off"
        with device.open(network, 100) as session:
            session.prepare(1)
            assert session.sm_count == 80


def test_a_gpu_cut_into_slices_is_refused(machine: Machine) -> None:
    machine.gpus.set(mig=1)
    with pytest.raises(GpuSetupError, match="MIG"):
        CudaDevice()


def test_a_client_that_the_daemon_does_not_know_is_refused(
    machine: Machine, network: NetworkFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MPS_IGNORES", "1")
    with CudaDevice() as device, pytest.raises(ProbeError, match="not among the clients of the MPS daemon"):
        open_and_leave(device, network)


def test_it_can_be_closed_twice_and_leaves_nothing(machine: Machine, network: NetworkFile) -> None:
    device = CudaDevice()
    with device.open(network, 50):
        assert len(daemons(machine.claims)) == 2, "the daemon and its server"
    device.close()
    device.close()
    assert daemons(machine.claims) == set()
    assert list(machine.claims.iterdir()) == []
