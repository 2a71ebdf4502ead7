"""Learned structure and interval factors, on networks that were drawn from the model itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from rapp.evaluation.scores import score
from rapp.inference.covariance import Covariance
from rapp.inference.law import log_latency
from rapp.inference.learn import NARROW, fit_network, learn_structure
from rapp.inference.posterior import Curves, Observations, Prior, infer_curves
from rapp.inference.structure import Structure, default_structure
from rapp.knots import Knots
from rapp.training.dataset import Campaign, TrainingSet
from rapp.training.held_out import interval_factor
from rapp.training.intervals import NORMAL_90, _weighted_quantile, at_points, interval_factors
from rapp.training.points import fixed_list, listed
from rapp.types import FloatArray

NOISE = 0.03
KNOTS = Knots(
    *(np.array(axis, dtype=float) for axis in ((1, 4), (10, 40, 70, 100), (20, 60, 100))),
    *(np.array(axis, dtype=float) for axis in ((1, 4), (10, 40, 70, 100), (20, 60, 100))),
)
TRAINED, UNSEEN = 24, 40


def true_structure() -> Structure:
    wide = default_structure(KNOTS.batch, KNOTS.sm_pct, KNOTS.quota_pct)
    none = np.zeros((0, len(KNOTS.quota_pct)))
    return Structure(
        NARROW * wide.device, 0.1 * wide.shared, 0.1 * wide.local, wide.variation[2:], none, NOISE
    )


def drawn(rng: np.random.Generator, covariance: FloatArray) -> FloatArray:
    return rng.multivariate_normal(np.zeros(len(covariance)), covariance, method="eigh")


def simulated(count: int, seed: int, gpu_time: bool) -> tuple[dict[str, Prior], dict[str, Observations]]:
    """Priors of `count` networks, and all points of the true curves around each, with noise."""
    rng, truth = np.random.default_rng(seed), true_structure()
    cover = Covariance(truth, KNOTS)
    b, s, q = (index.ravel() for index in np.indices(KNOTS.shape))
    at = (b, s, np.full_like(q, -1) if gpu_time else q)
    every = cover.curve(truth.shared, at, at) + cover.variation(at, at)
    priors, points = {}, {}
    for i in range(count):
        level = rng.uniform(0, 3)
        device = level + 0.8 * (np.log(KNOTS.batch)[:, None] - np.log(KNOTS.sm_pct / 100)[None])
        host = rng.uniform(1, 3) - 0.9 * np.log(KNOTS.quota_pct / 100)
        log_device = device + drawn(rng, truth.device).reshape(device.shape)
        log_host = host[at[2]] + drawn(rng, every)
        share, limits = KNOTS.quota_pct[q] / 100, np.full(len(q), gpu_time)
        latency, _, _ = log_latency(log_device[b, s], log_host, share, limits, 2.0)
        latency += NOISE * rng.standard_normal(len(q))
        priors[f"n{i}"] = Prior(device, host)
        points[f"n{i}"] = Observations(b, s, q, share, latency, limits, 2.0)
    return priors, points


@dataclass(frozen=True)
class Learned:
    """What was learned from simulated networks, and others to try it on."""

    data: TrainingSet
    fits: dict[str, Curves]
    structure: Structure
    factors: dict[int, float]
    priors: dict[str, Prior]
    points: dict[str, Observations]

    def answers(self, count: int) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
        """Of each new network with so many measured points: true and predicted log latency, half width."""
        factor, found = interval_factor(self.factors, count), []
        for name, points in self.points.items():
            given, rest = listed(points, KNOTS, fixed_list(KNOTS)[:count])
            curves = infer_curves(self.priors[name], self.structure, KNOTS, given)
            scored = Observations(
                *(getattr(points, f)[rest] for f in ("batch", "sm", "quota", "quota_share", "log_latency")),
                points.gpu_time[rest], points.credit,
            )  # fmt: skip
            mean, deviation = at_points(curves, scored, self.structure.noise)
            found.append((scored.log_latency, mean, factor * deviation))
        return found


@pytest.fixture(scope="module", params=["launch_gate", "gpu_time"])
def learned(request: pytest.FixtureRequest) -> Learned:
    gpu_time = request.param == "gpu_time"
    priors, points = simulated(TRAINED, 0, gpu_time)
    names = tuple(priors)
    campaign = Campaign("made up", "pytorch-eager", "fp32", (request.param,), 2.0, None)
    data = TrainingSet(names, KNOTS, {}, points, {}, (), campaign, "")
    fits = {name: fit_network(points[name], KNOTS) for name in names}
    structure = learn_structure(fits, priors, KNOTS, NOISE)
    parts = [names[k::4] for k in range(4)]
    factors = interval_factors(data, fits, priors, parts, structure, 0)
    return Learned(data, fits, structure, factors, *simulated(UNSEEN, 1, gpu_time))


@pytest.mark.parametrize("count", [0, 1, 3, 5, 8])
def test_ninety_percent_lie_within_the_interval(learned: Learned, count: int) -> None:
    inside = [np.mean(np.abs(true - mean) <= half) for true, mean, half in learned.answers(count)]
    assert 0.80 <= np.mean(inside) <= 0.97
    # The factor does it: without, the interval is one of a normal distribution of the learned deviation.
    assert 0.4 < interval_factor(learned.factors, count) < 4


def test_measured_points_make_the_answer_better_and_the_interval_narrower(learned: Learned) -> None:
    errors, widths = {}, {}
    for count in (0, 1, 3, 8):
        found = learned.answers(count)
        errors[count] = np.mean([np.abs(np.expm1(mean - true)).mean() for true, mean, _ in found])
        widths[count] = np.mean([half.mean() for _, _, half in found])
    assert errors[0] > 1.2 * errors[1]
    assert errors[1] > errors[3] > errors[8]
    assert errors[8] < 0.5 * errors[0]
    # Nothing predicts the noise of what was not measured.
    assert errors[8] > NOISE * np.sqrt(2 / np.pi)
    assert widths[0] > widths[3] > widths[8]


def test_the_learned_structure_is_near_the_true_one(learned: Learned) -> None:
    """On the level of log D, which all points of a network share: between half and twice the variance."""
    truth = true_structure().device.mean()
    assert 0.5 < learned.structure.device.mean() / truth < 2
    assert learned.structure.names == learned.data.names
    np.testing.assert_allclose(learned.structure.device, learned.structure.device.T)
    assert np.linalg.eigvalsh(learned.structure.device).min() > 0


def test_a_known_network_has_a_factor_of_its_own_unless_not_wanted(learned: Learned) -> None:
    data = learned.data.only(learned.data.names[:6])
    parts = [data.names[k::2] for k in range(2)]
    unseen, _ = simulated(TRAINED, 0, bool(data.points["n0"].gpu_time.all()))
    arguments = data, learned.fits, unseen, parts, learned.structure, 0
    known, unknown = interval_factors(*arguments), interval_factors(*arguments, known=False)
    assert set(unknown) == {0, 1, 3, 5, 8, 11}
    (extra,) = set(known) - set(unknown)
    assert 15 < extra < 24
    assert {k: known[k] for k in unknown} == unknown


def test_each_network_weighs_the_same_in_a_factor() -> None:
    few, many = np.array([1.0, 2.0]), np.linspace(10, 20, 1001)
    # 80 % of the second network's rows and all of the first's make 90 % of both.
    assert _weighted_quantile([few, many]) == pytest.approx(18, abs=0.02)
    assert _weighted_quantile([np.arange(1.0, 12.0)]) == 10.0
    assert _weighted_quantile([]) == NORMAL_90


def test_an_answer_at_points_is_that_of_the_decoder(gated: TrainingSet) -> None:
    import torch

    from rapp.inference.tables import Tables
    from rapp.model.decoder import Decoder

    for credit, gpu_time in ((0.0, False), (2.0, True)):
        points = gated.points["resnet18"]
        points = Observations(
            points.batch, points.sm, points.quota, points.quota_share, points.log_latency,
            np.full(len(points), gpu_time), credit,
        )  # fmt: skip
        curves = fit_network(points, gated.knots)
        mean, deviation = at_points(curves, points, NOISE)
        tables, knots = Tables.of(curves).with_noise(NOISE), gated.knots
        configs = knots.batch[points.batch], knots.sm_pct[points.sm], knots.quota_pct[points.quota]
        arrays = (tables.log_latency, tables.log_device, tables.log_host, tables.deviation)
        answer, low, high, _, _ = Decoder(knots)(
            *map(torch.from_numpy, arrays), *(torch.tensor(axis, dtype=torch.float32) for axis in configs),
            torch.from_numpy(points.gpu_time.astype(np.float32)), torch.tensor(credit), torch.tensor(1.5),
        )  # fmt: skip
        np.testing.assert_allclose(np.exp(mean), answer.numpy(), rtol=1e-4)
        np.testing.assert_allclose(2 * 1.5 * deviation, (high / low).log().numpy(), rtol=1e-3)


def test_coverage_is_what_the_evaluation_reports(learned: Learned) -> None:
    true, mean, half = (np.concatenate(column) for column in zip(*learned.answers(3), strict=True))
    scores = score(np.exp(true), np.exp(mean), np.exp(mean - half), np.exp(mean + half))
    assert scores.coverage == pytest.approx(100 * np.mean(np.abs(true - mean) <= half), abs=0.2)
    assert 80 <= scores.coverage <= 97
