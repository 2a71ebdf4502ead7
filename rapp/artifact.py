"""The predictor artifact: a folder that holds all that answering needs, and says what it is.

    card.json       `rapp.card.Card`
    encoder.onnx    operator graph -> prior of its curves
    decoder.onnx    curves and configurations -> latency, interval, device and host time
    structure.npz   covariances and prototypes (`rapp.inference.structure.Structure`)
    networks.npz    curves of the networks of the training on the knots

Nothing in it is a pickle. The card has the SHA-256 of every other file, so that damage is found when the
artifact is loaded, and describes the inputs and outputs of both ONNX files: a scheduler in another language
needs ONNX Runtime and this folder alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rapp.card import FORMAT_VERSION, Card
from rapp.errors import ArtifactError
from rapp.fileio import atomic_folder
from rapp.graph.features import schema_hash
from rapp.inference.structure import Structure
from rapp.knots import Knots

__all__ = ["FILES", "FORMAT_VERSION", "Artifact", "Card", "NetworkTables", "npz_bytes", "write_artifact"]

CARD = "card.json"
FILES = ("encoder.onnx", "decoder.onnx", "structure.npz", "networks.npz")

_AGAIN = "copy the whole folder again, or export it again"


@dataclass(frozen=True)
class NetworkTables:
    """Curves on the knots of the P networks of the training, in the order of the card: `networks.npz`.

    Args:
        log_latency: (P, B, S, Q) log latency under a launch gate, log ms, non-increasing in the quota.
        log_device: (P, B, S) log D, log ms.
        log_host: (P, B, S) log H without a quota, log ms.
        deviation: (P, B, S, Q) standard deviation of `log_latency`.
        points: (P,) how many rows each network was fitted to.
    """

    log_latency: NDArray[np.float32]
    log_device: NDArray[np.float32]
    log_host: NDArray[np.float32]
    deviation: NDArray[np.float32]
    points: NDArray[np.int64]

    def to_bytes(self) -> bytes:
        """The content of `networks.npz`."""
        curves = ("log_latency", "log_device", "log_host", "deviation")
        arrays = {name: getattr(self, name).astype(np.float32) for name in curves}
        return npz_bytes(arrays | {"points": self.points.astype(np.int64)})


@dataclass(frozen=True)
class Artifact:
    """A loaded and verified artifact."""

    folder: Path
    card: Card
    knots: Knots
    structure: Structure
    networks: NetworkTables
    encoder: bytes
    decoder: bytes

    @classmethod
    def load(cls, folder: str | Path) -> Artifact:
        """Read and verify the artifact in `folder`.

        Raises:
            ArtifactError: a file is missing or damaged, or the artifact is of another format, or of other
                features than this version computes. The message says what to do.
        """
        folder = Path(folder)
        card = _read_card(folder)
        files = {name: _read_file(folder, name, card) for name in FILES}
        knots = _knots(folder, card)
        return cls(
            folder,
            card,
            knots,
            _structure(folder / "structure.npz", files["structure.npz"], card, knots),
            _tables(folder / "networks.npz", files["networks.npz"], card, knots),
            files["encoder.onnx"],
            files["decoder.onnx"],
        )


def write_artifact(folder: str | Path, card: Card, files: Mapping[str, bytes]) -> Card:
    """Write an artifact, whole or not at all; one that was there before is replaced.

    Args:
        folder: where; nothing but an artifact may be there.
        card: its `files` are filled in here.
        files: the content of each of `FILES`.

    Returns:
        The card as it was written.

    Raises:
        ArtifactError: `files` are not those of an artifact, or `folder` holds something else.
        RappError: `folder` cannot be written.
    """
    folder = Path(folder)
    if set(files) != set(FILES):
        raise ArtifactError(folder, f"an artifact has {', '.join(FILES)}, not {', '.join(sorted(files))}")
    if folder.is_dir():
        others = sorted(path.name for path in folder.iterdir() if path.name not in (CARD, *FILES))
        if others:
            raise ArtifactError(
                folder, f"holds {others[0]}, which is no part of an artifact: move it, or name another folder"
            )
    card = card.model_copy(update={"files": {name: _sha256(files[name]) for name in FILES}})
    with atomic_folder(folder) as temporary:
        for name in FILES:
            (temporary / name).write_bytes(files[name])
        (temporary / CARD).write_text(card.model_dump_json(indent=2) + "\n", "utf-8")
    return card


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of an npz file; the same bytes for the same arrays."""
    if any(array.dtype.hasobject for array in arrays.values()):
        raise ValueError("an array of objects would be written as a pickle")
    buffer, named = io.BytesIO(), dict[str, Any](arrays)
    np.savez_compressed(buffer, **named)
    return buffer.getvalue()


def _read_card(folder: Path) -> Card:
    path = folder / CARD
    if not folder.is_dir():
        raise ArtifactError(folder, "is a file, not a folder" if folder.exists() else "no such folder")
    if not path.is_file():
        raise ArtifactError(folder, f"has no {CARD}: this is no predictor artifact")
    try:
        content = json.loads(_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(path, f"is not valid JSON ({error}): {_AGAIN}") from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise ArtifactError(path, f"has no format_version: this is no predictor artifact, or {_AGAIN}")
    from rapp import __version__

    version, writer = content["format_version"], content.get("rapp_version", "unknown")
    if version != FORMAT_VERSION:
        raise ArtifactError(
            path,
            f"has format version {version!r}, rapp {__version__} reads {FORMAT_VERSION}:"
            f" use the rapp that wrote it, version {writer}, or export it again",
        )
    try:
        card = Card.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the card"
        raise ArtifactError(path, f"{first['msg']}: {_AGAIN}", where=where) from error
    if card.feature_schema.hash != schema_hash():
        raise ArtifactError(
            path,
            f"its encoder reads other features of a graph than rapp {__version__} computes:"
            f" use the rapp that wrote it, version {writer}, or train it again",
        )
    return card


def _read_file(folder: Path, name: str, card: Card) -> bytes:
    path = folder / name
    if not path.is_file():
        raise ArtifactError(folder, f"lacks {name}: {_AGAIN}")
    content = _bytes(path)
    if name not in card.files:
        raise ArtifactError(folder / CARD, f"has no SHA-256 of {name}: {_AGAIN}")
    if _sha256(content) != card.files[name]:
        raise ArtifactError(path, f"is damaged, its SHA-256 is not that in the card: {_AGAIN}")
    return content


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(path, f"cannot be read: {error.strerror}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _knots(folder: Path, card: Card) -> Knots:
    axes = card.knots
    try:
        knots = Knots.from_dict(axes)
        for axis in axes.values():
            values = np.array(axis)
            if not len(values) or values[0] <= 0 or (np.diff(values) <= 0).any():
                raise ValueError("its axes must be positive and ascend")
    except (TypeError, ValueError) as error:
        raise ArtifactError(folder / CARD, f"{error}: {_AGAIN}", where="knots") from error
    return knots


def _structure(path: Path, content: bytes, card: Card, knots: Knots) -> Structure:
    arrays = _arrays(path, content)
    b, s, q = len(knots.trained_batch), len(knots.trained_sm_pct), len(knots.trained_quota())
    shapes = {"device": (b * s, b * s), "shared": (q, q), "local": (q, q), "noise": ()}
    shapes |= {"prototypes": (len(card.networks), q)}
    for index in range(sum(name.startswith("batch_") for name in arrays)):
        shapes |= {f"batch_{index}": (b, b), f"sm_{index}": (s, s), f"quota_{index}": (q, q)}
    _check(path, arrays, shapes)
    return Structure.from_arrays(arrays, tuple(network.name for network in card.networks))


def _tables(path: Path, content: bytes, card: Card, knots: Knots) -> NetworkTables:
    arrays, count = _arrays(path, content), len(card.networks)
    full = (count, *knots.shape)
    curves = {"log_latency": full, "log_device": full[:-1], "log_host": full[:-1], "deviation": full}
    _check(path, arrays, curves | {"points": (count,)})
    return NetworkTables(
        **{name: arrays[name].astype(np.float32) for name in curves}, points=arrays["points"].astype(np.int64)
    )


def _arrays(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ArtifactError(path, f"is no archive of plain arrays ({error}): {_AGAIN}") from error


def _check(path: Path, arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if name not in arrays:
            raise ArtifactError(path, f"lacks the array {name}: {_AGAIN}")
        array = arrays[name]
        if array.shape != shape:
            raise ArtifactError(path, f"{name} has shape {array.shape}, the card implies {shape}: {_AGAIN}")
        if not (np.issubdtype(array.dtype, np.number) and np.isfinite(array).all()):
            raise ArtifactError(path, f"{name} holds what is no finite number: {_AGAIN}")
