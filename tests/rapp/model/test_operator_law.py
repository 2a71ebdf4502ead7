"""Device time of operators: its shape over batch and SM partition, whatever is learned."""

from __future__ import annotations

import math

import pytest
import torch

from rapp.model.operator_law import BYTES_PER_MS, FLOPS_PER_MS, KERNEL_MS, OperatorLaw

BATCH = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
SM = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.7, 1.0])


def law_of(seed: int, spread: float = 3.0) -> OperatorLaw:
    """A law whose learned part is far from where learning starts."""
    torch.manual_seed(seed)
    law = OperatorLaw(8, BATCH, SM)
    with torch.no_grad():
        law.read[-1].weight.normal_(0, spread)
        law.offset.normal_(0, 1)
        law.scale.fill_(0.3)
    return law


def random_costs(count: int) -> torch.Tensor:
    costs = torch.exp(torch.rand(count, 4) * 20)
    costs[0] = 0.0  # a view: the host visits it, the device does nothing
    return costs


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_more_sms_are_never_slower_and_more_batch_is_never_faster(seed: int) -> None:
    time = law_of(seed)(torch.randn(50, 8), random_costs(50)).detach().double()
    assert time.shape == (50, len(BATCH), len(SM))
    assert (time > 0).all()
    by_sm, by_batch = time.diff(dim=2), time.diff(dim=1)
    assert (by_sm <= 1e-6 * time[:, :, 1:]).all()
    assert (by_batch >= -1e-6 * time[:, 1:]).all()
    # It does react: a law that ignored the partition or the batch would pass the lines above.
    assert (time[:, -1, 0] > 1.5 * time[:, -1, -1]).any()
    assert (time[:, -1, -1] > 8 * time[:, 0, -1]).any()


def test_the_partition_does_not_matter_to_an_operator_that_cannot_fill_it() -> None:
    law = OperatorLaw(8, BATCH, SM)
    few, many = 1e3, 1e9  # output elements of one sample
    costs = torch.tensor([[1e9, 1e6, 0.0, few], [1e9, 1e6, 0.0, many]])
    small, large = law(torch.zeros(2, 8), costs).detach()
    assert small[0, 0] / small[0, -1] == pytest.approx(1, abs=0.01)
    assert large[-1, 0] / large[-1, -1] > 10


def test_learning_starts_at_the_data_sheet() -> None:
    """a + w b / share, with share = softmin(s, p b, c) of order 4, by hand for one operator at start."""
    torch.manual_seed(0)
    law = OperatorLaw(8, BATCH, SM)
    with torch.no_grad():
        law.read[-1].weight.zero_()
    flops, moved, weights, elements = 2e9, 4e6, 9e5, 1e6
    time = law(torch.randn(1, 8), torch.tensor([[flops, moved, weights, elements]]))[0].detach()
    fixed = math.log1p(math.exp(-1)) * KERNEL_MS + weights / BYTES_PER_MS
    work = flops / FLOPS_PER_MS + moved / BYTES_PER_MS + 1e-5
    parallel = (elements + 1) / (80 * 2048 * 4) * math.exp(2)
    ceiling = 1 / (1 + math.exp(-2))
    for b, batch in enumerate(BATCH.tolist()):
        for s, sm in enumerate(SM.tolist()):
            share = (sm**-4 + (parallel * batch) ** -4 + ceiling**-4) ** -0.25
            assert time[b, s].item() == pytest.approx(fixed + work * batch / share, rel=1e-4)


def test_a_view_takes_less_than_a_kernel_and_operators_of_any_size_have_a_time() -> None:
    law = OperatorLaw(8, BATCH, SM)
    view = law(torch.zeros(1, 8), torch.tensor([[0.0, 0.0, 0.0, 9216.0]]))[0]
    assert (view[:3] < KERNEL_MS).all()
    extreme = torch.tensor([[0.0] * 4, [1e15] * 4, [1e15, 0, 0, 0], [0, 0, 0, 1e15]])
    time = law(torch.zeros(4, 8), extreme)
    assert torch.isfinite(time).all()
    assert (time > 0).all()
