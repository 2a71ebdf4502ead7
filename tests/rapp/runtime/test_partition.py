"""Which GPUs have SM partitions, and when a process has the one it asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rapp.runtime.gpu import ComputeMode, GpuInfo
from rapp.runtime.mps import MpsError
from rapp.runtime.partition import GpuSetupError, check_gpu, check_partition, why_no_partitions

V100 = GpuInfo(0, "GPU-0011", "Tesla V100", 16384, (7, 0), ComputeMode.DEFAULT, None, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compute_mode": ComputeMode.PROHIBITED}, "prohibited: sudo nvidia-smi -i 0 -c DEFAULT"),
        ({"mig": True}, r"cut into slices.*cuda:MIG-<uuid>.*sudo nvidia-smi -i 0 -mig 0$"),
        (
            {"mig": True, "uuid": "MIG-1", "compute_mode": ComputeMode.EXCLUSIVE_PROCESS},
            "needs the default compute mode for MPS under MIG",
        ),
    ],
)
def test_a_gpu_that_cannot_be_used_is_refused_with_what_to_change(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(GpuSetupError, match=message):
        check_gpu(replace(V100, **change))  # type: ignore[arg-type]


def test_gpus_that_can_be_used_are_accepted() -> None:
    check_gpu(V100)
    check_gpu(replace(V100, compute_mode=ComputeMode.EXCLUSIVE_PROCESS))
    check_gpu(replace(V100, mig=True, uuid="MIG-1"))
    check_gpu(replace(V100, capability=None))


def test_partitions_need_volta_and_the_control_program(
    fake_mps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why_no_partitions(V100) is None
    old = why_no_partitions(replace(V100, name="Tesla P100", capability=(6, 0)))
    assert old == "Tesla P100 has compute capability 6.0, SM partitions need 7.0"
    monkeypatch.setenv("PATH", "/nowhere")
    assert str(why_no_partitions(V100)).startswith("no nvidia-cuda-mps-control on PATH")


def test_a_partition_is_what_was_asked_to_a_step_and_never_the_whole_gpu() -> None:
    for sm_pct, sm_count in ((100, 80), (50, 40), (50, 38), (5, 4), (5, 2), (99, 80), (99, 78)):
        check_partition(sm_pct, sm_count, 80)
    check_partition(6.25, 16, 132)  # a chunk of 8 on Hopper, rounded up
    for sm_pct, sm_count, reason in (
        (50, 80, "without MPS"),
        (95, 80, "without MPS"),
        (50, 20, "another share"),
    ):
        with pytest.raises(MpsError, match=reason):
            check_partition(sm_pct, sm_count, 80)
