"""Rows and GPUs as HAS-GPU orders them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scaler.packing import Pool
from scaler.policies.base import Member
from scaler.policies.has_gpu_rows import by_occupancy, row_sm_pct, rows_of, unused, used


@pytest.mark.parametrize(
    ("network", "missing_rps", "sm_pct"),
    [
        ("bert-qt", 31, 70), ("bert", 30, 50), ("resnet50", 26, 50), ("resnet50", 25, 30),
        ("ConvNeXt_base", 31, 70), ("convnext_base", 3, 30), ("mobilenet_v3_large", 41, 70),
        ("mobilenet_v3_large", 40, 30), ("gpt2", 1, 80), ("vgg19", 99, 50),
    ],
)  # fmt: skip
def test_the_sm_partition_of_a_new_row_is_a_constant_of_the_name(
    network: str, missing_rps: float, sm_pct: float
) -> None:
    assert row_sm_pct(network, missing_rps) == sm_pct


def test_occupancy_is_a_sum_of_shares_and_orders_the_gpus(
    pool: Callable[..., Pool], member: Callable[..., Member]
) -> None:
    # Integer division, as published, makes both 0.
    made = pool(3, [member("x", 60.0, 50.0, gpu="g0"), member("y", 40.0, 10.0, gpu="g2")])
    assert [gpu.gpu_share for gpu in by_occupancy(made)] == [0.0, 0.04, 0.3]
    assert [gpu.id for gpu in used(by_occupancy(made), 0.5)] == ["g2", "g0"]
    assert [gpu.id for gpu in used(by_occupancy(made), 0.3)] == ["g2"]
    assert [gpu.id for gpu in unused(made.gpus.values())] == ["g1"]


def test_a_gpu_has_two_rows_whose_sm_partitions_fit_side_by_side(
    pool: Callable[..., Pool], member: Callable[..., Member]
) -> None:
    gpu = pool(1, [member("x", 60.0, 50.0, row=1)]).gpus["g0"]
    assert list(rows_of(gpu, 40.0)) == [(0, 40.0, 100.0), (1, 60.0, 50.0)]
    assert list(rows_of(gpu, 50.0)) == [(1, 60.0, 50.0)]
    both = pool(1, [member("x", 30.0, 100.0), member("y", 30.0, 10.0, row=1)]).gpus["g0"]
    # The first is full, and there is no third.
    assert list(rows_of(both, 30.0)) == [(1, 30.0, 90.0)]
