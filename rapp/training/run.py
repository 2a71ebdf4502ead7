"""A training as a folder: settings, checkpoints, artifact; resumed by the same command after any end.

RUN/run.json        settings and the hash of the rows; another training refuses the folder
RUN/state/          checkpoints and fitted curves, to resume from
RUN/artifact/       the exported predictor, whole or not there
RUN/history.csv     loss of each step
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rapp.artifact import Artifact
from rapp.errors import ArtifactError, ConfigError, RappError
from rapp.fileio import atomic_path
from rapp.training.checkpoint import finished_weights
from rapp.training.dataset import TrainingSet
from rapp.training.encoder_fit import EncoderSettings, settings_dict
from rapp.training.export import export_model
from rapp.training.pipeline import MEMBERS, Report, TrainedModel, train_model


@dataclass(frozen=True)
class RunSettings:
    """What defines a run.

    Args:
        members: encoders of the ensemble.
        license_id: SPDX identifier of the profiles' licence, for the card.
        init: another run, or an artifact, to start from (fine-tuning).
    """

    encoder: EncoderSettings
    seed: int = 0
    members: int = MEMBERS
    license_id: str = "unknown"
    init: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and MLflow."""
        return {
            "seed": self.seed, "members": self.members, "license": self.license_id,
            "init": str(self.init) if self.init else None, **settings_dict(self.encoder),
        }  # fmt: skip


def use_threads(count: int) -> None:
    """Let torch use so many threads; 0: all cores of the machine."""
    torch.set_num_threads(count or os.cpu_count() or 1)


def train_run(
    data: TrainingSet, settings: RunSettings, folder: Path, report: Report | None = None
) -> TrainedModel:
    """Train in `folder`, or go on there, and export the artifact.

    Raises:
        ConfigError: the folder holds a run with other settings or other rows.
        RappError: another process trains in it, or it cannot be written.
    """
    with _locked(folder):
        _claim(folder, settings, data)
        start = initial_weights(settings.init) if settings.init else None
        with _history(folder / "history.csv") as record:

            def tell(stage: str, done: int, total: int, loss: float) -> None:
                record(stage, done, loss)
                if report:
                    report(stage, done, total, loss)

            model = train_model(
                data, settings.encoder, settings.seed, members=settings.members, state=folder / "state",
                fit_cache=folder / "state" / "curves", start=start, report=tell,
            )  # fmt: skip
        if report:
            report("export", 0, 1, float("nan"))
        export_model(model, folder / "artifact", license_id=settings.license_id)
        if report:
            report("export", 1, 1, float("nan"))
        return model


def initial_weights(source: Path) -> Mapping[str, torch.Tensor]:
    """The first encoder's weights of another run, or of an artifact.

    Raises:
        ArtifactError: `source` is neither a run with a finished encoder nor an artifact.
    """
    checkpoint = source / "state" / "encoder-0.pt"
    if checkpoint.is_file():
        return finished_weights(checkpoint)
    if not (source / "encoder.onnx").is_file():
        raise ArtifactError(
            source, "is neither an artifact nor a run with a finished encoder: name a folder of one of these"
        )
    return _exported_weights(Artifact.load(source).encoder)


def _exported_weights(encoder: bytes) -> Mapping[str, torch.Tensor]:
    """Weights by name from `encoder.onnx`, whose initializers keep the names of torch's parameters.

    The export merges equal tensors under one name and folds scalars: two biases of the law that have
    always moved together, and its scale, which a training sets anew for its device.
    """
    import onnx

    first = "members.0."
    weights = {
        tensor.name.removeprefix(first): torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load_from_string(encoder).graph.initializer
        if tensor.name.startswith(first)
    }
    weights.setdefault("device_law.read.2.bias", weights["device_law.offset"])
    return weights


def recorded_steps(folder: Path) -> int | None:
    """Steps of each encoder of the run that `folder` holds; None where it holds none.

    A training under a time budget resumes with the steps that were affordable when it began.
    """
    steps = _recorded(folder / "run.json").get("steps")
    return steps if isinstance(steps, int) else None


def _claim(folder: Path, settings: RunSettings, data: TrainingSet) -> None:
    """Write run.json, or check that what is there is this training."""
    path = folder / "run.json"
    wanted = settings.to_dict() | {
        "rows_hash": data.rows_hash, "networks": list(data.names),
        "graph_hashes": [data.graph_hashes[name] for name in data.names],
    }  # fmt: skip
    found = _recorded(path)
    if found:
        # A version that recorded less may have begun it: what it did not record cannot differ.
        different = [key for key in wanted if found.get(key, wanted[key]) != wanted[key]]
        if different:
            raise ConfigError(
                f"{folder} holds a run with another {', '.join(different)}: name another --out, or delete it"
            )
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=2) + "\n")


def _recorded(path: Path) -> dict[str, Any]:
    """What run.json says; empty where there is none."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ArtifactError(path, "is not valid JSON: delete the folder to start anew") from error
    if not isinstance(found, dict) or "rows_hash" not in found:
        raise ArtifactError(path, "is not that of a run: delete the folder to start anew, or name another")
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise RappError(f"{folder}: cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RappError(
                f"{folder}: another process is training there; wait for it, or name another --out"
            ) from None
        yield


@contextmanager
def _history(path: Path) -> Iterator[Any]:
    """Append one line a step; a step that was done before a kill may stand twice, the last one counts."""
    try:
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if not path.stat().st_size:  # also where a kill came before the first line
                writer.writerow(("stage", "step", "loss"))
                file.flush()

            def record(stage: str, step: int, loss: float) -> None:
                if loss == loss:
                    writer.writerow((stage, step, f"{loss:.6g}"))
                    file.flush()

            yield record
    except OSError as error:
        raise RappError(f"{path}: cannot be written: {error.strerror}") from error
