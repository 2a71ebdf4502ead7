"""Fitting one encoder: deterministic, resumable, and it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from rapp.errors import ArtifactError, ConfigError
from rapp.inference.posterior import Curves
from rapp.knots import Knots
from rapp.model.encoder import Encoder, Variant
from rapp.training.batch import GraphBatch, trained_knots
from rapp.training.checkpoint import finished_weights
from rapp.training.dataset import TrainingSet
from rapp.training.encoder_fit import (
    EncoderSettings,
    fit_encoder,
    on_knots,
    priors,
    settings_dict,
)
from rapp.training.pipeline import fitted_curves

SHORT = EncoderSettings(steps=8, hidden=16)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    """Bit-equal weights are promised for the same number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fits(gated: TrainingSet) -> dict[str, Curves]:
    return fitted_curves(gated)


def weights(encoder: Encoder) -> dict[str, Tensor]:
    return dict(encoder.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(
    gated: TrainingSet, fits: dict[str, Curves]
) -> None:
    one, again = (weights(fit_encoder(gated, fits, SHORT, 3)) for _ in range(2))
    assert same(one, again)
    assert not same(one, weights(fit_encoder(gated, fits, SHORT, 4)))


def test_the_loss_falls(tiny: TrainingSet) -> None:
    losses: list[float] = []
    settings = EncoderSettings(steps=25, hidden=16)
    fit_encoder(tiny, fitted_curves(tiny), settings, 0, progress=lambda _, loss: losses.append(loss))
    assert len(losses) == 25
    assert losses[-1] < 0.75 * losses[0]


def test_a_trained_encoder_knows_device_time_it_was_shown(
    gated: TrainingSet, fits: dict[str, Curves], device_ms
) -> None:
    """Where the device decides, log D must come near the truth of the made-up device; before, it does not."""
    settings = EncoderSettings(steps=60, hidden=16)
    start = EncoderSettings(steps=1, hidden=16, learning_rate=1e-9)

    def error(chosen: EncoderSettings) -> float:
        answers = priors([fit_encoder(gated, fits, chosen, 0)], gated, gated.names, chosen)
        off = [
            answers[name].log_device[
                np.flatnonzero(gated.knots.batch == 4)[0], np.flatnonzero(gated.knots.sm_pct == 10)[0]
            ]
            - np.log(device_ms(name, 4, 10))
            for name in ("resnet18", "alexnet", "vgg11")
        ]
        return float(np.abs(off).max())

    assert error(settings) < 0.15
    assert error(start) > 0.3


@pytest.mark.parametrize("variant", get_args(Variant))
def test_every_variant_trains_and_answers_on_all_knots(
    gated: TrainingSet, fits: dict[str, Curves], variant: Variant
) -> None:
    settings = replace(SHORT, steps=3, variant=variant)
    losses: list[float] = []
    encoder = fit_encoder(gated, fits, settings, 0, progress=lambda _, loss: losses.append(loss))
    assert losses[-1] < losses[0]
    answers = priors([encoder], gated, gated.names, settings)
    b, s, q = gated.knots.shape
    assert set(answers) == set(gated.names)
    for prior in answers.values():
        assert prior.log_device.shape == (b, s)
        assert prior.log_host.shape == (q,)
        assert np.isfinite(prior.log_device).all()


class StoppedError(Exception):
    """A training that was stopped between two steps."""


def stop_at(step: int):  # type: ignore[no-untyped-def]
    def progress(done: int, _: float) -> None:
        if done == step:
            raise StoppedError

    return progress


@pytest.mark.parametrize("stops", [(27,), (3, 49, 51)])
def test_what_was_stopped_goes_on_to_the_same_weights(
    gated: TrainingSet, fits: dict[str, Curves], tmp_path: Path, stops: tuple[int, ...]
) -> None:
    """Beyond the first checkpoint, with a schedule and an optimizer whose state matters."""
    settings = EncoderSettings(steps=54, hidden=8, layers=1)
    data = gated.only(["alexnet", "vgg11"])
    file = tmp_path / "state" / "encoder-0.pt"
    for stop in stops:
        with pytest.raises(StoppedError):
            fit_encoder(data, fits, settings, 1, file, progress=stop_at(stop))
        torch.manual_seed(999)  # another process knows nothing of this one's random state
    seen: list[int] = []
    resumed = fit_encoder(data, fits, settings, 1, file, progress=lambda step, _: seen.append(step))
    assert seen == list(range(1 + 25 * (stops[-1] // 25), 55))
    assert same(weights(resumed), weights(fit_encoder(data, fits, settings, 1)))
    assert same(dict(finished_weights(file)), weights(resumed))


def test_a_checkpoint_that_cannot_be_used_is_one_line(
    gated: TrainingSet, fits: dict[str, Curves], tmp_path: Path
) -> None:
    data, settings, file = gated.only(["alexnet"]), replace(SHORT, steps=2), tmp_path / "encoder-0.pt"
    fit_encoder(data, fits, settings, 0, file)
    content = file.read_bytes()
    with pytest.raises(ArtifactError, match="of a training of 2 steps, not 3"):
        fit_encoder(data, fits, replace(settings, steps=3), 0, file)
    with pytest.raises(ArtifactError, match="cannot be used"):
        fit_encoder(data, fits, replace(settings, hidden=8), 0, file)
    foreign = tmp_path / "foreign.pt"
    torch.save([1, 2], foreign)
    for damaged in (
        content[: len(content) // 2],
        content[:-1],
        b"",
        b"not a checkpoint",
        foreign.read_bytes(),
    ):
        file.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"encoder-0\.pt: the checkpoint cannot be used") as caught:
            fit_encoder(data, fits, settings, 0, file)
        assert "\n" not in str(caught.value)
        with pytest.raises(ArtifactError, match="cannot be used"):
            finished_weights(file)


def test_no_code_runs_from_a_checkpoint(gated: TrainingSet, fits: dict[str, Curves], tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "ran",))

    file = tmp_path / "encoder-0.pt"
    torch.save({"model": Bomb(), "schedule": {"total_steps": 2}}, file)
    with pytest.raises(ArtifactError):
        fit_encoder(gated.only(["alexnet"]), fits, replace(SHORT, steps=2), 0, file)
    assert not (tmp_path / "ran").exists()


def test_fine_tuning_begins_where_the_other_training_ended(
    gated: TrainingSet, fits: dict[str, Curves], limited: TrainingSet
) -> None:
    settings = replace(SHORT, steps=25)
    ended: list[float] = []
    source = fit_encoder(gated, fits, settings, 0, progress=lambda _, loss: ended.append(loss))

    def first_loss(start: dict[str, Tensor] | None) -> float:
        losses: list[float] = []
        one = replace(settings, steps=1, learning_rate=1e-12)
        fit_encoder(gated, fits, one, 5, start=start, progress=lambda _, loss: losses.append(loss))
        return losses[0]

    assert first_loss(weights(source)) <= ended[-1] * 1.02
    assert first_loss(None) > 1.3 * ended[-1]


def test_axes_of_another_training_are_not_taken_over(gated: TrainingSet, fits: dict[str, Curves]) -> None:
    """Weights of a device with as many SM partitions, but others, must not bring those along."""
    source = fit_encoder(gated, fits, replace(SHORT, steps=1), 0)
    start = {name: value.clone() for name, value in weights(source).items()}
    start["device_law.sm"] *= 0.5
    start["device_law.batch"] *= 2
    tuned = fit_encoder(gated, fits, replace(SHORT, steps=1, learning_rate=1e-12), 0, start=start)
    assert torch.equal(tuned.device_law.sm, source.device_law.sm)
    assert torch.equal(tuned.device_law.batch, source.device_law.batch)
    torch.testing.assert_close(tuned.embed.weight, source.embed.weight)


@pytest.mark.parametrize("change", [{"hidden": 8}, {"layers": 1}, {"layers": 3}])
def test_a_start_from_another_encoder_is_refused(
    gated: TrainingSet, fits: dict[str, Curves], change: dict[str, int]
) -> None:
    """Taking over what happens to fit would be a start from nothing that looks like one from something."""
    data, settings = gated.only(["alexnet"]), replace(SHORT, steps=1)
    start = weights(fit_encoder(data, fits, replace(settings, **change), 0))
    with pytest.raises(ConfigError, match="is another one than these settings make"):
        fit_encoder(data, fits, settings, 0, start=start)


def test_tables_on_all_knots_hold_the_trained_ones(gated: TrainingSet, fits: dict[str, Curves]) -> None:
    encoder = fit_encoder(gated, fits, replace(SHORT, steps=3), 0)
    knots, small = gated.knots, trained_knots(gated.knots)
    assert small.shape == (2, 4, 3)
    batch = GraphBatch.of([gated.features["resnet18"]])
    with torch.no_grad():
        device, host = batch.through(encoder)
        wide_device, wide_host = batch.through(on_knots(encoder, knots, SHORT))
    b, s = np.searchsorted(knots.batch, small.batch), np.searchsorted(knots.sm_pct, small.sm_pct)
    torch.testing.assert_close(wide_device[0][b][:, s], device[0])
    torch.testing.assert_close(wide_host, host)


def test_the_mean_of_encoders_is_taken_in_the_logarithm(gated: TrainingSet, fits: dict[str, Curves]) -> None:
    settings = replace(SHORT, steps=1)
    encoders = [fit_encoder(gated, fits, settings, seed) for seed in (0, 1)]
    both = priors(encoders, gated, ["vgg11"], settings)["vgg11"]
    one, other = (priors([e], gated, ["alexnet", "vgg11"], settings)["vgg11"] for e in encoders)
    np.testing.assert_allclose(both.log_device, (one.log_device + other.log_device) / 2, atol=1e-5)
    np.testing.assert_allclose(both.log_host, (one.log_host + other.log_host) / 2, atol=1e-5)
    assert priors(encoders, gated, [], settings) == {}


def test_trained_knots_always_hold_a_full_quota() -> None:
    assert trained_knots(Knots.around([1], [100], [20, 60])).quota_pct.tolist() == [20, 60, 100]


def test_settings_are_plain_values() -> None:
    plain = settings_dict(EncoderSettings())
    assert EncoderSettings(**plain) == EncoderSettings()
    assert all(isinstance(value, int | float | str) for value in plain.values())


def test_the_plain_head_starts_at_the_mean_curves(gated: TrainingSet, fits: dict[str, Curves]) -> None:
    """The ablation is no straw man: both heads start at the level of this device."""
    settings = replace(SHORT, variant="mlp-head", steps=1, learning_rate=1e-9)
    answers = priors([fit_encoder(gated, fits, settings, 0)], gated, gated.names, settings)
    knots = gated.knots
    b, s = (np.searchsorted(getattr(knots, a), getattr(knots, f"trained_{a}")) for a in ("batch", "sm_pct"))
    mean = np.mean([fits[name].log_device[np.ix_(b, s)] for name in gated.names], axis=0)
    for name in gated.names:
        assert np.abs(answers[name].log_device[np.ix_(b, s)] - mean).max() < 0.3
