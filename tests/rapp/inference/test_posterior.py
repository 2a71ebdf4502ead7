"""The posterior of a network's curves: what measured points must and must not change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rapp.inference import posterior
from rapp.inference.law import log_latency, soft_maximum
from rapp.inference.posterior import Curves, Observations, Prior, infer_curves, posterior_covariance
from rapp.inference.structure import Structure
from rapp.types import FloatArray

World = Any  # tests.rapp.inference.conftest.World; test files cannot import it

# At first the host's side, then the device's.
POINTS = [(1, 100, 10), (1, 100, 100), (1, 50, 30), (8, 5, 100), (8, 20, 100), (2, 5, 100)]


def predicted(curves: Curves, points: Observations) -> FloatArray:
    """Log latency of the curves at the points."""
    host = curves.log_host[points.host_at]
    device = curves.log_device[points.batch, points.sm]
    return log_latency(device, host, points.quota_share, points.gpu_time, points.credit)[0]


def gated(curves: Curves) -> FloatArray:
    return soft_maximum(curves.log_device[..., None], curves.log_host)


class TestPoints:
    @pytest.mark.parametrize("gpu_time", [False, True])
    def test_without_noise_the_curves_go_through_the_points(self, world: World, gpu_time: bool) -> None:
        points = world.measured(POINTS, gpu_time=gpu_time, credit=5.0)
        curves = infer_curves(world.prior, world.quiet(1e-4), world.knots, points)
        before = infer_curves(world.prior, world.quiet(1e-4), world.knots, world.measured([]))
        assert np.abs(predicted(before, points) - points.log_latency).max() > 0.2
        np.testing.assert_allclose(predicted(curves, points), points.log_latency, atol=1e-3)
        if not gpu_time:
            assert curves.deviation[points.batch, points.sm, points.quota].max() < 0.01

    def test_with_all_noise_the_curves_stay_at_the_prior(self, world: World) -> None:
        curves = infer_curves(world.prior, world.quiet(1e3), world.knots, world.measured(POINTS))
        np.testing.assert_allclose(curves.log_device, world.prior.log_device, atol=1e-3)
        np.testing.assert_allclose(curves.log_host[0, 0], world.prior.log_host, atol=1e-3)

    def test_more_noise_moves_the_curves_less(self, world: World) -> None:
        points = world.measured([(8, 5, 100)])
        place = points.batch[0], points.sm[0]
        moved = [
            infer_curves(world.prior, world.quiet(noise), world.knots, points).log_device[place]
            - world.prior.log_device[place]
            for noise in (0.01, 1.0, 5.0)
        ]
        assert moved[0] > moved[1] > moved[2] > 0

    def test_no_points_leave_the_prior_with_the_structures_width(self, world: World) -> None:
        curves = infer_curves(world.prior, world.structure, world.knots, world.measured([]))
        np.testing.assert_allclose(curves.log_device, world.prior.log_device)
        np.testing.assert_allclose(
            curves.log_host, np.broadcast_to(world.prior.log_host, world.knots.shape), atol=1e-12
        )
        # Far on the device's side the width is that of log D.
        b, s = world.knots.trained_index("batch")[-1], world.knots.trained_index("sm_pct")[0]
        index = b * len(world.knots.trained_sm_pct) + s
        assert curves.deviation[-1, 0, -1] == pytest.approx(
            np.sqrt(world.structure.device[index, index]), rel=1e-3
        )

    def test_a_point_teaches_its_side_and_no_other(self, world: World) -> None:
        held_by_device = infer_curves(
            world.prior, world.structure, world.knots, world.measured([(8, 5, 100)])
        )
        assert np.abs(held_by_device.log_host - world.prior.log_host).max() < 1e-3
        assert held_by_device.log_device[0, -1] > world.prior.log_device[0, -1] + 0.1
        held_by_host = infer_curves(world.prior, world.structure, world.knots, world.measured([(1, 100, 10)]))
        assert np.abs(held_by_host.log_device - world.prior.log_device).max() < 1e-3
        assert (held_by_host.log_host > world.prior.log_host + 0.1).all()

    def test_more_points_never_raise_the_variance(self, world: World) -> None:
        before = infer_curves(world.prior, world.structure, world.knots, world.measured([])).deviation
        # The truth is the prior, so that the law is made linear at the same place each time.
        alike = replace(world, device=world.prior.log_device, host=world.prior.log_host)
        for count in range(1, len(POINTS) + 1):
            after = infer_curves(
                world.prior, world.structure, world.knots, alike.measured(POINTS[:count])
            ).deviation
            assert (after <= before * (1 + 1e-6)).all(), f"{count} points"
            assert after.mean() < before.mean()
            before = after

    def test_the_whole_answer_gets_better_with_points(self, world: World) -> None:
        truth, errors = soft_maximum(world.device[..., None], world.host), []
        trained = np.ix_(world.knots.batch <= 8, world.knots.sm_pct >= 5)
        for some in ([], POINTS[:3], POINTS):
            curves = infer_curves(world.prior, world.structure, world.knots, world.measured(some))
            errors.append(np.abs(gated(curves) - truth)[trained].mean())
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 0.05 < 0.3 < errors[0]

    def test_one_wild_point_does_not_bend_the_curves(self, world: World) -> None:
        every = [(b, s, 100) for b in (1, 2, 4, 8) for s in (5, 20, 50, 100)]
        clean = infer_curves(world.prior, world.structure, world.knots, world.measured(every))
        error = np.zeros(len(every))
        error[every.index((4, 5, 100))] = np.log(3)
        bent = infer_curves(world.prior, world.structure, world.knots, world.measured(every, error=error))
        others = world.measured([one for one in every if one != (4, 5, 100)])
        assert np.abs(predicted(bent, others) - predicted(clean, others)).max() < 0.02

    def test_surprising_points_widen_every_deviation(self, world: World) -> None:
        expected = infer_curves(world.prior, world.structure, world.knots, world.measured(POINTS))
        error = np.where(np.arange(len(POINTS)) % 2, 1.0, -1.0)
        odd = infer_curves(world.prior, world.structure, world.knots, world.measured(POINTS, error=error))
        assert np.median(odd.deviation / expected.deviation) > 1.2

    def test_a_quota_of_device_time_tells_the_device_time(self, world: World) -> None:
        points = world.measured([(1, 100, 30), (4, 20, 10)], gpu_time=True)
        curves = infer_curves(world.prior, world.structure, world.knots, points)
        found = curves.log_device[points.batch, points.sm]
        np.testing.assert_allclose(found, world.device[points.batch, points.sm], atol=0.03)

    def test_repetitions_of_a_point_count_more_than_one(self, world: World) -> None:
        noisy = world.quiet(0.3)
        once, often = (
            infer_curves(world.prior, noisy, world.knots, world.measured([(8, 5, 100)] * count))
            for count in (1, 9)
        )
        assert often.deviation[-1, 0, -1] < once.deviation[-1, 0, -1]

    def test_many_points_give_what_an_annealed_search_gives(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        structure = with_prototypes(world, [2.4, 2.0, 1.6])
        every = [(b, s, q) for b in (1, 2, 4, 8) for s in (5, 20, 50, 100) for q in (10, 30, 60, 100)] * 2
        error = np.random.default_rng(0).normal(0, 0.03, len(every))
        points = world.measured(every, error=error)
        assert len(points) > posterior.PLENTY
        short = infer_curves(world.prior, structure, world.knots, points)
        monkeypatch.setattr(posterior, "PLENTY", 10**9)
        annealed = infer_curves(world.prior, structure, world.knots, points)
        np.testing.assert_allclose(gated(short), gated(annealed), atol=2e-3)


def with_prototypes(world: World, levels: list[float]) -> Structure:
    """Host curves that differ in level and, for the first two, in how they bend with the quota."""
    quota = np.log(world.knots.quota_pct[world.knots.trained_quota()] / 100)
    curves = np.stack([level - (1.05, 0.5, 0.9)[i % 3] * quota for i, level in enumerate(levels)])
    narrow = 0.02**2 * (np.eye(len(quota)) + 1)
    return replace(world.structure, prototypes=curves, local=narrow, names=tuple(map(str, levels)))


class TestPrototypes:
    def test_one_throttled_point_finds_the_prototype_it_belongs_to(self, world: World) -> None:
        # Two prototypes agree without a quota; one probe at 10 % tells them apart at 30 and 60 % as well.
        structure = with_prototypes(world, [2.4, 2.4])
        steep = replace(world, host=structure.prototypes[0])
        flat = replace(world, host=structure.prototypes[1])
        for network in (steep, flat):
            curves = infer_curves(world.prior, structure, world.knots, network.measured([(1, 100, 10)]))
            np.testing.assert_allclose(curves.log_host[0, -1], network.host, atol=0.06)

    def test_a_structure_without_prototypes_answers_too(self, world: World) -> None:
        structure = with_prototypes(world, [2.4]).without("2.4")
        assert structure.prototypes.shape == (0, 4)
        points = world.measured(POINTS)
        curves = infer_curves(world.prior, structure, world.knots, points)
        assert np.abs(predicted(curves, points) - points.log_latency).max() < 0.1


class TestCovariance:
    @pytest.mark.parametrize("count", [0, 4])
    def test_its_diagonal_is_the_variance_and_it_is_one(self, world: World, count: int) -> None:
        points = world.measured(POINTS[:count])
        b, s, q = (index.ravel() for index in np.indices(world.knots.shape))
        some = np.random.default_rng(0).permutation(len(b))[:50]
        at = b[some], s[some], q[some]
        covariance = posterior_covariance(world.prior, world.structure, world.knots, points, at)
        curves = infer_curves(world.prior, world.structure, world.knots, points)
        # One factor for the whole network: how much its points surprised, 1 without any.
        scale = curves.deviation[at] ** 2 / np.diag(covariance)
        np.testing.assert_allclose(scale, scale[0], rtol=1e-6)
        assert count or scale[0] == pytest.approx(1.0)
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-9)
        assert np.linalg.eigvalsh(covariance).min() > -1e-8

    def test_it_is_the_gaussian_conditional_where_the_law_is_linear(self, world: World) -> None:
        # Far on the device's side: plain Gaussian process regression on log D.
        prior = Prior(world.prior.log_device + 20, world.prior.log_host)
        structure, at = world.quiet(0.1), (np.array([0, 3]), np.array([2, 5]), np.array([3, 3]))
        alike = replace(world, device=prior.log_device)
        points = alike.measured([(8, 5, 100), (1, 50, 100)])
        cover = posterior.Covariance(structure, world.knots)
        seen = points.host_at
        k = cover.device(seen, seen) + 0.1**2 * np.eye(2) * posterior.STUDENT_NU / (posterior.STUDENT_NU + 1)
        expected = cover.device(at, at) - cover.device(at, seen) @ np.linalg.solve(k, cover.device(seen, at))
        found = posterior_covariance(prior, structure, world.knots, points, at)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_covariances_are_those_of_the_components(world: World) -> None:
    cover = posterior.Covariance(world.structure, world.knots)
    one = (np.array([0, 7]), np.array([0, 4]), np.array([1, 3]))
    b, s, q = (
        world.knots.trained_index(axis)[index]
        for axis, index in zip(("batch", "sm_pct", "quota_pct"), one, strict=True)
    )
    expected = sum(
        part.batch[np.ix_(b, b)] * part.sm[np.ix_(s, s)] * part.quota[np.ix_(q, q)]
        for part in world.structure.variation
    )
    np.testing.assert_allclose(cover.variation(one, one), expected)
    shared = world.structure.shared
    np.testing.assert_allclose(cover.curve(shared, one, one), shared[np.ix_(q, q)])
    np.testing.assert_allclose(cover.host_variance(shared, one), np.diag(expected + shared[np.ix_(q, q)]))
    np.testing.assert_allclose(cover.device_variance(one), np.diag(cover.device(one, one)))
