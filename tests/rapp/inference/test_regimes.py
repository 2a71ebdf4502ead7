"""Hosts that change their regime at an SM partition: hypotheses, their evidence, and answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.inference.answer import REGIMES_FROM, REGIMES_TO, answer_curves
from rapp.inference.design import next_gated_point
from rapp.inference.mixture import RegimePosterior
from rapp.inference.posterior import Observations, infer_curves
from rapp.inference.regimes import cases, hypotheses

World = Any  # the class of the fixture; test files cannot import it

SM = (5, 20, 50, 100)
HOST_BOUND = [(1, sm, quota) for sm in SM for quota in (10, 30, 60)]


@given(partitions=st.integers(1, 20))
@settings(deadline=None)
def test_hypotheses_are_no_change_one_change_or_two_and_their_probabilities_sum_to_one(
    partitions: int,
) -> None:
    labels, log_prior = hypotheses(partitions)
    assert np.exp(log_prior).sum() == pytest.approx(1)
    steps = np.abs(np.diff(labels, axis=1)).sum(axis=1)
    assert steps.max(initial=0) <= 2
    assert not labels[0].any()
    assert len(np.unique(labels, axis=0)) == len(labels) == 1 + partitions * (partitions - 1) // 2
    # The first partition is in regime 0 by definition: which one is called so means nothing.
    assert not labels[:, 0].any()


@given(partitions=st.integers(2, 12), data=st.data())
@settings(deadline=None, max_examples=40)
def test_cases_are_the_hypotheses_that_the_points_cannot_tell_apart(partitions: int, data: Any) -> None:
    at = np.array(data.draw(st.lists(st.integers(0, partitions - 1), min_size=1, max_size=5)))
    found = cases(partitions, at)
    assert sum(np.exp(case.log_prior) for case in found) == pytest.approx(1)
    assert len({tuple(case.labels) for case in found}) == len(found)
    for case in found:
        np.testing.assert_allclose(case.mean[at], case.labels, atol=1e-12)
        np.testing.assert_allclose(np.diag(case.both), case.mean, atol=1e-12)
        assert np.all((case.mean > -1e-12) & (case.mean < 1 + 1e-12))


def jumped(points: Observations, first: int, by: float) -> Observations:
    """The host is slower by a factor of exp(by) from the `first` of the SM partitions measured on."""
    order = np.unique(points.sm)
    return replace(
        points, log_latency=points.log_latency + by * (points.sm >= order[first]).astype(np.float64)
    )


@pytest.fixture
def host_bound(world: World) -> World:
    """A device that never sets the pace, so that the host alone shows."""
    return replace(
        world, device=world.device - 6.0, prior=replace(world.prior, log_device=world.device - 6.0)
    )


def test_a_jump_is_found_where_it_is(host_bound: World) -> None:
    points = jumped(host_bound.measured(HOST_BOUND), 2, 0.45)
    posterior = RegimePosterior(host_bound.prior, host_bound.structure, host_bound.knots, points)
    best = posterior.cases[0]
    np.testing.assert_allclose(best.case.mean, [0, 0, 1, 1], atol=1e-12)
    assert best.probability > 0.5


def test_without_a_jump_none_is_found(host_bound: World) -> None:
    points = host_bound.measured(HOST_BOUND)
    posterior = RegimePosterior(host_bound.prior, host_bound.structure, host_bound.knots, points)
    assert not posterior.cases[0].case.mean.any()


def test_the_mixture_answers_better_than_one_gaussian_where_the_host_jumps(host_bound: World) -> None:
    # Two partitions in full, of the two between them the lowest quota alone.
    known = [config for config in HOST_BOUND if config[1] in (5, 100) or config[2] == 10]
    every = jumped(host_bound.measured(HOST_BOUND), 2, 0.45)
    given_ = jumped(host_bound.measured(known), 2, 0.45)
    arguments = host_bound.prior, host_bound.structure, host_bound.knots, given_
    rest = np.array([config not in known for config in HOST_BOUND])
    at = every.batch[rest], every.sm[rest], every.quota[rest]

    def error(curves: Any) -> float:
        answer = np.logaddexp(12 * curves.log_device[at[:2]], 12 * curves.log_host[at]) / 12
        return float(np.abs(answer - every.log_latency[rest]).mean())

    assert error(RegimePosterior(*arguments).curves()) < error(infer_curves(*arguments))


def test_without_points_there_is_the_prior_and_more_doubt(world: World) -> None:
    nothing = world.measured([])
    posterior = RegimePosterior(world.prior, world.structure, world.knots, nothing)
    assert sum(one.probability for one in posterior.cases) == pytest.approx(1)
    curves = posterior.curves()
    np.testing.assert_allclose(curves.log_device, world.prior.log_device, atol=1e-6)
    assert np.all(curves.deviation > 0)


def test_the_covariance_of_knots_with_themselves_is_their_variance(world: World) -> None:
    points = jumped(world.measured([(1, sm, 30) for sm in SM]), 2, 0.3)
    posterior = RegimePosterior(world.prior, world.structure, world.knots, points)
    b, s, q = (index.ravel() for index in np.indices(world.knots.shape))
    at = b, s, q
    cross = posterior.cross_covariance(at, at)
    np.testing.assert_allclose(cross.covariance, cross.covariance.T, atol=1e-10)
    np.testing.assert_allclose(cross.variance, cross.other_variance)
    eigenvalues = np.linalg.eigvalsh(cross.covariance)
    assert eigenvalues.min() > -1e-6 * eigenvalues.max()
    assert np.all(np.diag(cross.covariance) <= cross.variance + 1e-9)


def test_the_next_point_is_one_of_the_candidates_and_the_one_that_leaves_least(world: World) -> None:
    points = world.measured([(1, 100, 100), (8, 5, 100)])
    posterior = RegimePosterior(world.prior, world.structure, world.knots, points)
    b, s, q = (index.ravel() for index in np.indices(world.knots.shape))
    candidates = np.arange(3, len(b), 7)
    chosen = next_gated_point(posterior, world.structure.noise, (b, s, q), candidates)
    assert chosen in candidates
    again = next_gated_point(posterior, world.structure.noise, (b, s, q), candidates[::-1])
    assert chosen == again


def test_which_posterior_answers_hangs_on_the_number_of_points_and_the_quota(world: World) -> None:
    configs = [(b, sm, quota) for b in (1, 2, 4, 8) for sm in SM for quota in (10, 30, 60, 100)] * 2

    def same(count: int, gpu_time: bool) -> bool:
        points = world.measured(configs[:count], gpu_time=gpu_time)
        arguments = world.prior, world.structure, world.knots, points
        return np.array_equal(answer_curves(*arguments).deviation, infer_curves(*arguments).deviation)

    assert same(REGIMES_FROM - 1, False)
    assert not same(REGIMES_FROM, False)
    assert same(REGIMES_FROM, True)
    assert same(REGIMES_TO + 1, False)
