"""The artifact folder: whole or not at all, and whatever is wrong with it is said."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from artifact_parts import TinyArtifact, edit_card, files_of, folder

from rapp.artifact import FILES, Artifact, npz_bytes, write_artifact
from rapp.errors import ArtifactError, RappError

__all__ = ["folder"]


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
