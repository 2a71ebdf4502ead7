"""From a trained model to the artifact that schedulers import."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rapp
from rapp.artifact import NetworkTables, npz_bytes, write_artifact
from rapp.card import Card, Configuration, FeatureSchema, TrainedNetwork
from rapp.errors import ConfigError
from rapp.graph.features import FEATURE_VERSION, schema_hash
from rapp.inference.posterior import infer_curves
from rapp.inference.tables import Tables
from rapp.model.ensemble import EncoderEnsemble
from rapp.model.export import export_decoder, export_encoder
from rapp.training.encoder_fit import on_knots, priors
from rapp.training.pipeline import TrainedModel
from rapp.training.points import fixed_list
from rapp.types import QuotaKind

LIMITS = (
    "Answers hold for the device, runtime and precision above; for another device, train with --init.",
    "Input sizes and operators other than the training's are extrapolation, and are marked so.",
    "An interval covers the mean latency of a configuration alone on the device, not its tail.",
)
GATE_LIMIT = (
    "The profiles' quota gates launches. Answers for a quota of device time follow from device and host"
    " time by the law of a token bucket; no measurement of this device has checked them."
)
ONE_ENCODER_LIMIT = (
    "The ensemble has one encoder, which has seen every network of the training: intervals of other networks"
    " are narrower than 90 % needs."
)


def export_model(
    model: TrainedModel,
    folder: Path,
    *,
    license_id: str,
    figures: dict[str, Any] | None = None,
    limits: Sequence[str] = (),
) -> Card:
    """Write the artifact of `model` to `folder`, whole or not at all; returns its card.

    Args:
        license_id: SPDX identifier; the profiles' licence carries over.
        figures: figures of the protocols, for the card.
        limits: further sentences for the card.

    Raises:
        ConfigError: the model is an ablation, which the artifact's format does not hold.
        ArtifactError, RappError: the folder holds something else, or cannot be written.
    """
    data, knots = model.data, model.data.knots
    if model.settings.variant != "rapp":
        raise ConfigError(f"the variant {model.settings.variant} is an ablation and cannot be exported")
    ensemble = EncoderEnsemble(
        [on_knots(encoder, knots, model.settings) for encoder in model.encoders]
    ).eval()
    campaign = data.campaign
    card = Card(
        rapp_version=rapp.__version__,
        created=datetime.now(UTC).replace(microsecond=0),
        device=campaign.device,
        runtime=campaign.runtime,
        precision=campaign.precision,
        quota_kinds=[QuotaKind(kind) for kind in campaign.quota_kinds],
        idle_ms=campaign.idle_ms,
        window_ms=campaign.window_ms,
        feature_schema=FeatureSchema(version=FEATURE_VERSION, hash=schema_hash()),
        knots=knots.to_dict(),
        networks=[TrainedNetwork(name=name, graph_hash=data.graph_hashes[name]) for name in data.names],
        operator_types=list(data.operator_types),
        rows_hash=data.rows_hash,
        rows=data.rows,
        seed=model.seed,
        calibration_points=[
            Configuration(sm_pct=c.sm_pct, quota_pct=c.quota_pct, batch=c.batch) for c in fixed_list(knots)
        ],
        interval_factors=dict(model.interval_factors),
        noise=model.structure.noise,
        figures=figures or {},
        limits=[*LIMITS, *_limits(model), *limits],
        license=license_id,
    )
    files = {
        "encoder.onnx": export_encoder(ensemble),
        "decoder.onnx": export_decoder(knots),
        "structure.npz": npz_bytes(model.structure.to_arrays()),
        "networks.npz": _known(model).to_bytes(),
    }
    return write_artifact(folder, card, files)


def _limits(model: TrainedModel) -> list[str]:
    """What holds of this model and not of every one."""
    kinds = model.data.campaign.quota_kinds
    found = [GATE_LIMIT] if "launch_gate" in kinds and "gpu_time" not in kinds else []
    return [*found, ONE_ENCODER_LIMIT] if len(model.encoders) == 1 else found


def _known(model: TrainedModel) -> NetworkTables:
    """Curves of the training networks: what the finished structure makes of all their points."""
    data = model.data
    answers = priors(model.encoders, data, data.names, model.settings)
    tables = [
        Tables.of(infer_curves(answers[name], model.structure, data.knots, data.points[name]))
        for name in data.names
    ]
    return NetworkTables(
        np.stack([t.log_latency for t in tables]),
        np.stack([t.log_device for t in tables]),
        np.stack([t.log_host for t in tables]),
        np.stack([t.deviation for t in tables]),
        np.array([len(data.points[name]) for name in data.names], dtype=np.int64),
    )


def torch_answers(model: TrainedModel, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What the torch model says of a network's prior, (B, S) and (Q,): the export must say the same."""
    ensemble = EncoderEnsemble([on_knots(e, model.data.knots, model.settings) for e in model.encoders]).eval()
    features = model.data.features[name]
    with torch.no_grad():
        device, host = ensemble(
            torch.from_numpy(features.operators),
            torch.from_numpy(features.costs),
            torch.from_numpy(features.edges),
        )
    return device.numpy(), host.numpy()
