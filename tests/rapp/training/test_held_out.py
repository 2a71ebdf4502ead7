"""Scores of networks and rows that a model has not seen."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rapp.card import Card
from rapp.inference.posterior import Observations, Prior
from rapp.knots import Knots
from rapp.training.dataset import TrainingSet, subset
from rapp.training.encoder_fit import EncoderSettings
from rapp.training.held_out import device_mape, interval_factor, score_networks, score_rows
from rapp.training.pipeline import TrainedModel, train_model

KNOTS = Knots.around([1, 4], [10, 50, 100], [50, 100])


@pytest.fixture(scope="module")
def model(gated: TrainingSet) -> TrainedModel:
    """Has not seen vgg11."""
    torch.set_num_threads(1)
    seen = gated.only([name for name in gated.names if name != "vgg11"])
    return train_model(seen, EncoderSettings(steps=15, hidden=16), 0, members=2)


@pytest.mark.parametrize("rule", [False, True])
def test_measured_points_are_not_scored_and_make_it_better(
    gated: TrainingSet, model: TrainedModel, rule: bool
) -> None:
    found = score_networks(model, gated, ["vgg11"], (0, 1, 5), rule)["vgg11"]
    assert list(found["points"]) == ["0", "1", "5"]
    for count, scores in found["points"].items():
        assert scores["n_rows"] == len(scores["ape"]) == 24 - int(count)
        assert scores["mape"] == pytest.approx(np.mean(scores["ape"]), abs=0.01)
    mape = {count: scores["mape"] for count, scores in found["points"].items()}
    assert mape["5"] < 0.7 * mape["0"]
    assert found["device_mape"] is not None


def test_rows_of_known_networks_are_answered_from_the_others(gated: TrainingSet, model: TrainedModel) -> None:
    name = "resnet18"
    points = gated.points[name]
    kept = np.arange(len(points)) % 6 != 0
    given = replace(model.data, names=(name,), points={name: subset(points, kept)})
    held = replace(gated, names=(name,), points={name: subset(points, ~kept)})
    scores = score_rows(replace(model, data=given), held)[name]["points"]["known"]
    assert scores["n_rows"] == 4
    assert scores["mape"] < 10


def device_points(free: np.ndarray, gated: np.ndarray | None = None) -> Observations:
    """At (1, 4) x (10, 50, 100): latency (2, 3), ms, without a quota and under a gate of 50 %."""
    b, s = (np.tile(index.ravel(), 2) for index in np.indices((2, 3)))
    batch = np.searchsorted(KNOTS.batch, [1, 4])[b]
    sm = np.searchsorted(KNOTS.sm_pct, [10, 50, 100])[s]
    share = np.repeat([1.0, 0.5], 6)
    quota = np.searchsorted(KNOTS.quota_pct, 100 * share)
    latency = np.log(np.concatenate([free.ravel(), (free if gated is None else gated).ravel()]))
    points = Observations(batch, sm, quota, share, latency, np.zeros(12, bool))
    return points if gated is not None else subset(points, np.arange(12) < 6)


FREE = np.array([[10.0, 5.0, 9.0], [40.0, 8.0, 9.0]])
PRIOR = Prior(np.full(KNOTS.shape[:2], math.log(20.0)), np.zeros(KNOTS.shape[2]))
ERRORS = {10.0: 100.0, 40.0: 50.0, 8.0: 150.0, 9.0: 100 * (20 / 9 - 1)}


def test_device_time_is_scored_where_the_device_decides() -> None:
    """The floor is 5 ms. At SM 100 the gate doubles the latency: the host was slow there, not the device."""
    points = device_points(FREE, FREE * [1.0, 1.05, 2.0])
    assert device_mape(PRIOR, points) == pytest.approx(np.mean([ERRORS[t] for t in (10.0, 40.0, 8.0)]))
    every = np.mean([ERRORS[t] for t in (10.0, 40.0, 8.0, 9.0, 9.0)])
    assert device_mape(PRIOR, points, strict=False) == pytest.approx(every)
    # Without a gated measurement nothing tells host from device.
    assert device_mape(PRIOR, device_points(FREE)) == pytest.approx(every)


def test_a_network_that_the_host_holds_up_everywhere_has_no_device_score() -> None:
    assert device_mape(PRIOR, device_points(np.full((2, 3), 5.0))) is None
    assert device_mape(PRIOR, device_points(FREE, 2 * FREE)) is None


def test_points_under_a_quota_are_not_scored_as_device_time() -> None:
    points = device_points(FREE, FREE)
    slow = replace(points, log_latency=np.where(points.quota_share < 1, 9.0, points.log_latency))
    assert device_mape(PRIOR, slow, strict=False) == device_mape(PRIOR, points, strict=False)


def test_a_factor_between_those_learned_is_the_cards() -> None:
    factors = {0: 2.0, 1: 1.8, 5: 1.5, 11: 1.4, 400: 1.1}
    card = Card.model_construct(interval_factors=factors)
    for count in (0, 1, 2, 4, 5, 30, 400, 5000):
        assert interval_factor(factors, count) == pytest.approx(card.interval_factor(count))
    assert interval_factor(factors, 2) < 1.8
