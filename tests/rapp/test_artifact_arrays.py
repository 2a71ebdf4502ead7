"""The arrays of an artifact: never a pickle, and all of the shapes that the card says."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from artifact_parts import folder, replace_file

from rapp.artifact import Artifact, npz_bytes
from rapp.errors import ArtifactError

__all__ = ["folder"]


class Marker:
    """Unpickling one leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestNoPickle:
    @pytest.mark.parametrize("name", ["structure.npz", "networks.npz"])
    def test_a_pickle_in_place_of_arrays_is_never_opened(
        self, folder: Path, tmp_path: Path, name: str
    ) -> None:
        replace_file(folder, name, pickle.dumps(Marker(tmp_path / "opened")))
        with pytest.raises(ArtifactError, match="no archive of plain arrays"):
            Artifact.load(folder)
        assert not (tmp_path / "opened").exists()

    def test_an_array_of_objects_is_never_opened(self, folder: Path, tmp_path: Path) -> None:
        with np.load(io.BytesIO((folder / "networks.npz").read_bytes())) as archive:
            arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
        arrays["log_latency"] = np.array([Marker(tmp_path / "opened")], dtype=object)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        replace_file(folder, "networks.npz", buffer.getvalue())
        with pytest.raises(ArtifactError, match="no archive of plain arrays"):
            Artifact.load(folder)
        assert not (tmp_path / "opened").exists()

    def test_none_is_written(self) -> None:
        with pytest.raises(ValueError, match="pickle"):
            npz_bytes({"a": np.array([{}], dtype=object)})


class TestArrays:
    @pytest.mark.parametrize(
        ("name", "array", "change", "message"),
        [
            ("structure.npz", "shared", lambda a: a[:-1], "shape"),
            ("structure.npz", "prototypes", lambda a: a[1:], "shape"),
            ("structure.npz", "sm_3", lambda a: a[1:], "shape"),
            ("networks.npz", "log_latency", lambda a: a[1:], "shape"),
            ("networks.npz", "log_device", lambda a: a * np.nan, "finite"),
            ("networks.npz", "points", lambda a: a.astype("U8"), "finite number"),
        ],
    )
    def test_arrays_that_do_not_fit_the_card_are_named(
        self, folder: Path, name: str, array: str, change: Callable[[Any], Any], message: str
    ) -> None:
        with np.load(io.BytesIO((folder / name).read_bytes())) as archive:
            arrays = {key: archive[key] for key in archive.files}
        replace_file(folder, name, npz_bytes(arrays | {array: change(arrays[array])}))
        with pytest.raises(ArtifactError, match=rf"{array}.*{message}"):
            Artifact.load(folder)

    def test_an_array_that_is_missing_is_named(self, folder: Path) -> None:
        replace_file(folder, "networks.npz", npz_bytes({"points": np.zeros(5, np.int64)}))
        with pytest.raises(ArtifactError, match="lacks the array log_latency"):
            Artifact.load(folder)
