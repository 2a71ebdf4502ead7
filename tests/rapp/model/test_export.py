"""The exported ONNX answers as torch does, on real graphs and at their limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from rapp.card import INPUTS_OUTPUTS
from rapp.graph.features import GraphFeatures
from rapp.knots import Knots
from rapp.model.decoder import Decoder
from rapp.model.encoder import Encoder
from rapp.model.ensemble import EncoderEnsemble
from rapp.model.export import export_decoder, export_encoder
from rapp.runtime import cpu_session

GRAPHS = ("alexnet", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "vit_b_32")
ALIKE = 1e-4


@pytest.fixture(scope="module")
def ensemble(knots: Knots) -> EncoderEnsemble:
    """Of one round of messages, since the export takes seconds; scripts/check_export.py takes the whole."""
    torch.manual_seed(0)
    return EncoderEnsemble([Encoder(knots, layers=1), Encoder(knots, layers=1)]).eval()


@pytest.fixture(scope="module")
def encoder(ensemble: EncoderEnsemble) -> bytes:
    return export_encoder(ensemble)


@pytest.fixture(scope="module")
def decoder(knots: Knots) -> bytes:
    return export_decoder(knots)


def differ(session: Any, ensemble: EncoderEnsemble, features: GraphFeatures) -> float:
    """Largest relative difference of a time."""
    feed = {"operators": features.operators, "costs": features.costs, "edges": features.edges}
    with torch.no_grad():
        wanted = ensemble(*(torch.from_numpy(feed[name]) for name in ("operators", "costs", "edges")))
    found = session.run(["log_device", "log_host"], feed)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == tuple(other.shape)
        assert np.isfinite(one).all()
    return max(
        float(np.abs(np.expm1(np.float64(one) - other.double().numpy())).max())
        for one, other in zip(found, wanted, strict=True)
    )


def test_encoder_answers_as_torch(
    ensemble: EncoderEnsemble, encoder: bytes, zoo_features: Callable[[str], GraphFeatures]
) -> None:
    session = cpu_session(encoder)
    for name in GRAPHS:
        assert differ(session, ensemble, zoo_features(name)) < ALIKE, name


def test_encoder_answers_for_graphs_without_edges_and_of_one_operator(
    ensemble: EncoderEnsemble, encoder: bytes, random_features: Callable[[int, int, int], GraphFeatures]
) -> None:
    session = cpu_session(encoder)
    for operators, edges in ((1, 0), (5, 0), (2, 1), (3, 60)):
        assert differ(session, ensemble, random_features(operators, edges, 7)) < ALIKE, (operators, edges)


def test_decoder_answers_as_torch_at_1000_random_configurations(knots: Knots, decoder: bytes) -> None:
    rng, count = np.random.default_rng(0), 1000
    b, s, q = knots.shape
    feed = {
        "log_latency": rng.normal(2, 1, (b, s, q)), "log_device": rng.normal(1, 1, (b, s)),
        "log_host": rng.normal(1, 1, (b, s)), "deviation": rng.uniform(0.01, 0.5, (b, s, q)),
        # Within the knots and beyond them.
        "batch": np.exp(rng.uniform(0, np.log(300), count)), "sm_pct": rng.uniform(0.3, 100, count),
        "quota_pct": rng.uniform(1, 100, count), "gpu_time": rng.integers(0, 2, count),
        "credit_ms": np.array(2.5), "interval_factor": np.array(1.8),
    }  # fmt: skip
    feed = {name: value.astype(np.float32) for name, value in feed.items()}
    with torch.no_grad():
        wanted = Decoder(knots)(*(torch.from_numpy(value) for value in feed.values()))
    found = cpu_session(decoder).run(None, feed)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == (count,)
        np.testing.assert_allclose(one, other.numpy(), rtol=ALIKE)


def test_names_and_types_are_those_of_the_card(encoder: bytes, decoder: bytes) -> None:
    for file, content in (("encoder.onnx", encoder), ("decoder.onnx", decoder)):
        session, format_ = cpu_session(content), INPUTS_OUTPUTS[file]
        for found, wanted in (
            (session.get_inputs(), format_.inputs),
            (session.get_outputs(), format_.outputs),
        ):
            assert [tensor.name for tensor in found] == [tensor.name for tensor in wanted]
            kinds = [tensor.type.removeprefix("tensor(").rstrip(")") for tensor in found]
            assert kinds == [{"float32": "float"}.get(t.dtype, t.dtype) for t in wanted]


def test_files_hold_no_trace_of_the_machine_that_made_them(encoder: bytes, decoder: bytes) -> None:
    for content in (encoder, decoder):
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
        assert b"site-packages" not in content
        assert b".py" not in content
        assert not any(tensor.external_data for tensor in model.graph.initializer)
