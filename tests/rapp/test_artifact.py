"""The artifact folder: whole or not at all, and whatever is wrong with it is said."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rapp
from rapp.artifact import FILES, Artifact, npz_bytes, write_artifact
from rapp.card import INPUTS_OUTPUTS, Card
from rapp.errors import ArtifactError, RappError
from rapp.graph.features import WIDTH

SCHEMAS = Path(rapp.__file__).parent / "schemas"

TinyArtifact = Any  # the class of the fixture; test files cannot import it


@pytest.fixture
def folder(tiny_artifact: TinyArtifact, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_artifact.folder, tmp_path / "copy"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def edit_card(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "card.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put another file in its place, hash and all, as one who writes artifacts by hand."""
    (folder / name).write_bytes(content)
    edit_card(folder, lambda card: card["files"].update({name: hashlib.sha256(content).hexdigest()}))


class TestLoad:
    def test_gives_back_what_was_written(self, tiny_artifact: TinyArtifact) -> None:
        artifact = Artifact.load(tiny_artifact.folder)
        assert list(artifact.card.graph_hashes) == list(tiny_artifact.truth)
        assert artifact.networks.log_latency.shape == (len(tiny_artifact.truth), *artifact.knots.shape)
        assert artifact.structure.names == tuple(tiny_artifact.truth)
        assert artifact.structure.prototypes.shape == (len(tiny_artifact.truth), 4)
        assert hashlib.sha256(artifact.encoder).hexdigest() == artifact.card.files["encoder.onnx"]
        assert artifact.knots.trained_sm_pct.tolist() == [5, 20, 50, 100]

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="no such folder"):
            Artifact.load(tmp_path / "none")

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="no predictor artifact"):
            Artifact.load(tmp_path)

    def test_a_file_instead_of_a_folder(self, folder: Path) -> None:
        with pytest.raises(ArtifactError, match="not a folder"):
            Artifact.load(folder / "card.json")

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(ArtifactError, match=rf"lacks {name}: copy the whole folder again"):
            Artifact.load(folder)

    @given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_one_flipped_bit_is_found(self, folder: Path, name: str, place: float, bit: int) -> None:
        path = folder / name
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[int(place * len(whole))] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            with pytest.raises(ArtifactError, match=rf"{name}: is damaged"):
                Artifact.load(folder)
        finally:
            path.write_bytes(whole)

    @pytest.mark.parametrize("name", FILES)
    def test_a_truncated_file_is_found(self, folder: Path, name: str) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ArtifactError, match="is damaged"):
            Artifact.load(folder)

    @given(data=st.data())
    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_damaged_card_is_a_typed_error_or_harmless(self, folder: Path, data: st.DataObject) -> None:
        path = folder / "card.json"
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(damaged)
        try:
            Artifact.load(folder)
        except ArtifactError as error:
            assert str(folder) in str(error)
        finally:
            path.write_bytes(whole)

    def test_a_newer_format_names_the_rapp_that_reads_it(self, folder: Path) -> None:
        edit_card(folder, lambda card: card.update(format_version=2, rapp_version="3.1.4"))
        with pytest.raises(
            ArtifactError, match=r"format version 2.*use the rapp that wrote it, version 3\.1\.4"
        ):
            Artifact.load(folder)

    def test_other_features_say_to_train_again(self, folder: Path) -> None:
        edit_card(folder, lambda card: card["feature_schema"].update(hash="0" * 64))
        with pytest.raises(ArtifactError, match=r"other features.*train it again"):
            Artifact.load(folder)

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            (lambda card: card.update(surprise=1), "surprise"),
            (lambda card: card.pop("device"), "device"),
            (lambda card: card.update(quota_kinds=["memory"]), "quota_kinds"),
            (lambda card: card.update(idle_ms=-1), "idle_ms"),
            (lambda card: card.update(interval_factors={}), "interval_factors"),
            (lambda card: card.update(interval_factors={"0": -1.0}), "interval_factors"),
            (lambda card: card["networks"].append(card["networks"][0]), "networks"),
            (lambda card: card["knots"].pop("batch"), "knots"),
            (lambda card: card["knots"]["sm_pct"].reverse(), "knots"),
        ],
    )
    def test_a_card_that_is_none_names_the_key(
        self, folder: Path, change: Callable[[dict[str, Any]], object], place: str
    ) -> None:
        edit_card(folder, change)
        with pytest.raises(ArtifactError, match=place):
            Artifact.load(folder)

    @pytest.mark.parametrize("content", ["", "[]", "{}", "null", "[" * 100_000])
    def test_a_card_that_is_no_card(self, folder: Path, content: str) -> None:
        (folder / "card.json").write_text(content)
        with pytest.raises(ArtifactError, match=r"card\.json"):
            Artifact.load(folder)


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


class TestWrite:
    def test_an_artifact_replaces_one(self, folder: Path) -> None:
        card = Artifact.load(folder).card
        written = write_artifact(folder, card.model_copy(update={"seed": 7}), files_of(folder))
        assert Artifact.load(folder).card == written
        assert written.seed == 7
        assert sorted(path.name for path in folder.iterdir()) == sorted(("card.json", *FILES))

    def test_nothing_else_is_replaced(self, folder: Path) -> None:
        card = Artifact.load(folder).card
        files = files_of(folder)
        (folder / "thesis.tex").write_text("years of work")
        with pytest.raises(ArtifactError, match=r"thesis\.tex.*another folder"):
            write_artifact(folder, card, files)
        assert (folder / "thesis.tex").read_text() == "years of work"

    def test_a_failure_leaves_the_old_one(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = Artifact.load(folder).card
        files = files_of(folder)

        def full(*_: object, **__: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises((RappError, OSError), match="No space left"):
            write_artifact(folder, before.model_copy(update={"seed": 7}), files)
        monkeypatch.undo()
        assert Artifact.load(folder).card == before
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def test_all_files_are_needed(self, folder: Path, tmp_path: Path) -> None:
        card, files = Artifact.load(folder).card, files_of(folder)
        del files["decoder.onnx"]
        with pytest.raises(ArtifactError, match="has encoder"):
            write_artifact(tmp_path / "new", card, files)
        assert not (tmp_path / "new").exists()

    def test_the_same_arrays_are_the_same_bytes(self) -> None:
        arrays = {"a": np.arange(5.0), "b": np.ones((2, 2), np.float32)}
        assert npz_bytes(arrays) == npz_bytes(arrays)


class TestCard:
    @pytest.mark.parametrize(
        ("points", "expected"),
        [(0, 2.0), (3, 1.8), (1, 1.9), (64, 1.5), (10_000, 1.5)],
    )
    def test_the_interval_factor_is_linear_in_the_log_of_points(
        self, tiny_artifact: TinyArtifact, points: int, expected: float
    ) -> None:
        # log(1 + 1) is half of log(1 + 3).
        assert Artifact.load(tiny_artifact.folder).card.interval_factor(points) == pytest.approx(expected)

    def test_it_describes_the_tensors_that_are_there(self, tiny_artifact: TinyArtifact) -> None:
        onnx = pytest.importorskip("onnx")
        artifact = Artifact.load(tiny_artifact.folder)
        b, s, q = artifact.knots.shape
        sizes = {"batch_knot": b, "sm_knot": s, "quota_knot": q, "end": 2, "cost": 4, "feature": WIDTH}
        for name in ("encoder.onnx", "decoder.onnx"):
            graph = onnx.load_from_string((tiny_artifact.folder / name).read_bytes()).graph
            described = artifact.card.inputs_outputs[name]
            for there, tensors in ((graph.input, described.inputs), (graph.output, described.outputs)):
                assert [value.name for value in there] == [tensor.name for tensor in tensors]
                for value, tensor in zip(there, tensors, strict=True):
                    shape = value.type.tensor_type.shape.dim
                    assert len(shape) == len(tensor.axes), tensor.name
                    for size, axis in zip(shape, tensor.axes, strict=True):
                        assert size.dim_value == sizes.get(axis, 0), f"{tensor.name} {axis}"
                    elem = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                    assert elem == np.dtype(tensor.dtype)

    def test_the_description_is_whole(self) -> None:
        for model in INPUTS_OUTPUTS.values():
            for tensor in (*model.inputs, *model.outputs):
                assert tensor.unit
                assert tensor.meaning

    def test_its_schema_is_the_committed_one(self) -> None:
        check_schema("card", Card)

    def test_that_of_calibrations_is_too(self) -> None:
        from rapp.calibrate import Calibration

        check_schema("calibration", Calibration)


def check_schema(name: str, model: Any) -> None:
    """A change of the format must be seen in a diff: replace the file by what the message holds."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    expected = json.dumps(head | model.model_json_schema(mode="serialization"), indent=2) + "\n"
    assert (SCHEMAS / f"{name}.schema.json").read_text() == expected, expected
