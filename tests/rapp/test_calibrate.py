"""Calibration files: measured points, for one artifact, of several networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapp.artifact import Artifact
from rapp.calibrate import read_points, save_points
from rapp.card import Card
from rapp.errors import CalibrationError, RappError
from rapp.types import MeasuredPoint, QuotaKind, ResourceConfig

TinyArtifact = Any  # the class of the fixture; test files cannot import it

FIRST, SECOND = "1" * 64, "2" * 64
POINTS = (
    MeasuredPoint(ResourceConfig(50, 30, 4), 12.25),
    MeasuredPoint(ResourceConfig(33.3, 100, 1), 7.1, QuotaKind.GPU_TIME),
)
points = st.builds(
    MeasuredPoint,
    st.builds(ResourceConfig, st.floats(0.01, 100), st.floats(0.01, 100), st.integers(1, 10_000)),
    st.floats(1e-6, 1e9),
    st.sampled_from(QuotaKind),
)


@pytest.fixture(scope="session")
def card(tiny_artifact: TinyArtifact) -> Card:
    return Artifact.load(tiny_artifact.folder).card


@given(wanted=st.lists(points, min_size=1, max_size=5))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_points_come_back_exactly(card: Card, tmp_path: Path, wanted: list[MeasuredPoint]) -> None:
    save_points(tmp_path / "c.json", card, FIRST, "net", wanted)
    assert read_points(tmp_path / "c.json", card, FIRST, "net") == tuple(wanted)


def test_a_file_keeps_its_other_networks_and_replaces_the_same(card: Card, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    save_points(file, card, FIRST, "one", POINTS)
    save_points(file, card, SECOND, "two", POINTS[:1])
    assert read_points(file, card, FIRST, "one") == POINTS
    assert read_points(file, card, SECOND, "two") == POINTS[:1]
    save_points(file, card, FIRST, "one", POINTS[1:])
    assert read_points(file, card, FIRST, "one") == POINTS[1:]
    assert read_points(file, card, SECOND, "two") == POINTS[:1]


def test_a_person_can_read_it(card: Card, tmp_path: Path) -> None:
    save_points(tmp_path / "c.json", card, FIRST, "one", POINTS)
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["format_version"] == 1
    assert content["rows_hash"] == card.rows_hash
    assert content["networks"][FIRST]["points"][0] == {
        "sm_pct": 50.0, "quota_pct": 30.0, "batch": 4, "latency_ms": 12.25, "quota_kind": "launch_gate",
    }  # fmt: skip


def test_an_empty_file_is_written_over(card: Card, tmp_path: Path) -> None:
    (tmp_path / "c.json").touch()
    save_points(tmp_path / "c.json", card, FIRST, "one", POINTS)
    assert read_points(tmp_path / "c.json", card, FIRST, "one") == POINTS


def test_a_network_that_is_not_in_it_is_told_with_those_that_are(card: Card, tmp_path: Path) -> None:
    save_points(tmp_path / "c.json", card, FIRST, "one", POINTS)
    with pytest.raises(CalibrationError, match="no points of two, it has those of one"):
        read_points(tmp_path / "c.json", card, SECOND, "two")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rows_hash": "6" * 64}, "another artifact.*calibrate again"),
     ({"feature_hash": "6" * 64}, "other features.*calibrate again")],
)  # fmt: skip
def test_one_for_another_artifact_is_not_taken_and_not_written_over(
    card: Card, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    file = tmp_path / "c.json"
    save_points(file, card, FIRST, "one", POINTS)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    before = file.read_bytes()
    with pytest.raises(CalibrationError, match=message):
        read_points(file, card, FIRST, "one")
    with pytest.raises(CalibrationError, match=message):
        save_points(file, card, FIRST, "one", POINTS)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda c: c.update(format_version=2), "format_version"),
        (lambda c: c.pop("format_version"), "format_version"),
        (lambda c: c.update(extra=1), "extra"),
        (lambda c: c["networks"].update({"short": {"name": "x", "points": []}}), "short"),
        (lambda c: c["networks"][FIRST]["points"][0].update(sm_pct=0), "sm_pct"),
        (lambda c: c["networks"][FIRST]["points"][0].update(quota_pct=150), "quota_pct"),
        (lambda c: c["networks"][FIRST]["points"][0].update(batch=1.5), "batch"),
        (lambda c: c["networks"][FIRST]["points"][0].update(latency_ms=-1), "latency_ms"),
        (lambda c: c["networks"][FIRST]["points"][1].update(quota_kind="memory"), "quota_kind"),
        (lambda c: c["networks"][FIRST]["points"][1].pop("latency_ms"), "latency_ms"),
    ],
)
def test_what_is_wrong_in_it_is_named(
    card: Card, tmp_path: Path, change: Callable[[dict[str, Any]], object], place: str
) -> None:
    file = tmp_path / "c.json"
    save_points(file, card, FIRST, "one", POINTS)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match=place):
        read_points(file, card, FIRST, "one")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"NaN", b'{"networks": NaN}'])
def test_what_is_no_calibration_is_a_typed_error(card: Card, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(CalibrationError, match=r"c\.json: is no calibration"):
        read_points(tmp_path / "c.json", card, FIRST, "one")


def test_no_such_file_and_a_folder_are_typed_errors(card: Card, tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(CalibrationError, match="cannot be read"):
            read_points(path, card, FIRST, "one")
    with pytest.raises(RappError):
        save_points(tmp_path, card, FIRST, "one", POINTS)
