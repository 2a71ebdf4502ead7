from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.device import Failure
from profiler.journal import Journal, journal_path
from profiler.journal_format import JournalError, read_journal
from profiler.measure import Measurement
from profiler.outcome import Outcome, Stage, Status
from profiler.plan import Point
from rapp.errors import ConfigError, RappError
from rapp.types import ResourceConfig

SPECIFICATION = {"networks": {"net": "abc"}, "sm_pct": [50.0, 100.0], "seed": 0, "device": {"device": "V"}}
MEASURED = Measurement(
    latency_ms=1.1, median_ms=1.0, median_low_ms=0.9, median_high_ms=None, p95_ms=None, p99_ms=None,
    mad_ms=0.1, device_ms=0.7, launch_ms=None, n_samples=20, converged=True, rejected={"throttled": 2},
)  # fmt: skip
AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def outcome(number: int, status: Status = Status.OK) -> Outcome:
    point = Point("net", ResourceConfig(50, 100, number + 1), anchor=2 if number == 3 else None)
    if status == Status.OK:
        return Outcome(point, status, started_at=AT, seconds=1 / 3, sm_count=40, measurement=MEASURED)
    return Outcome(point, status, "out of memory: ü", Failure.OUT_OF_MEMORY, Stage.RUN, AT)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "profiles.parquet"


@pytest.mark.parametrize("status", [Status.OK, Status.FAILED])
def test_an_outcome_survives_the_journal_whole(out: Path, status: Status) -> None:
    with Journal.open(out, SPECIFICATION) as journal:
        journal.append(outcome(3, status))
        campaign_id = journal.campaign_id
    with Journal.open(out, SPECIFICATION) as journal:
        assert list(journal.outcomes.values()) == [outcome(3, status)]
        assert journal.campaign_id == campaign_id


def filled(out: Path, count: int = 4) -> bytes:
    with Journal.open(out, SPECIFICATION) as journal:
        for number in range(count):
            journal.append(outcome(number))
    return journal_path(out).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The journal of four outcomes."""
    return filled(tmp_path_factory.mktemp("whole") / "t.parquet")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_cut_anywhere_it_loses_the_last_point_at_most(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    out = tmp_path_factory.mktemp("cut") / "t.parquet"
    cut = data.draw(st.integers(0, len(whole)))
    journal_path(out).write_bytes(whole[:cut])
    kept = max(whole[:cut].count(b"\n") - 1, 0)
    with Journal.open(out, SPECIFICATION) as journal:
        assert list(journal.outcomes.values()) == [outcome(number) for number in range(kept)]
        journal.append(outcome(7))
    with Journal.open(out, SPECIFICATION) as journal:
        assert list(journal.outcomes.values())[-1] == outcome(7)
        assert len(journal.outcomes) == kept + 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    out = tmp_path_factory.mktemp("changed") / "t.parquet"
    last_line = whole[:-1].rindex(b"\n") + 1
    place = data.draw(st.integers(0, last_line - 2))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
    damaged = whole[:place] + bytes([value]) + whole[place + 1 :]
    journal_path(out).write_bytes(damaged)
    with pytest.raises(JournalError, match=r"damaged|no journal"):
        Journal.open(out, SPECIFICATION)
    assert journal_path(out).read_bytes() == damaged, "a refused journal stays as it is"


def test_a_damaged_last_line_is_what_a_loss_of_power_leaves(out: Path) -> None:
    whole = filled(out)
    last_line = whole[:-1].rindex(b"\n") + 1
    journal_path(out).write_bytes(whole[:last_line] + b"\0" * 20 + b"\n")
    with Journal.open(out, SPECIFICATION) as journal:
        assert len(journal.outcomes) == 3


def test_a_point_measured_twice_is_damage(out: Path) -> None:
    whole = filled(out, 1)
    journal_path(out).write_bytes(whole + whole.splitlines(keepends=True)[1])
    with pytest.raises(JournalError, match="line 3: measures net, SM 50 %, quota 100 %, batch 1 a second"):
        Journal.open(out, SPECIFICATION)


@pytest.mark.parametrize("content", [b"hello", b"hello\nworld\n", b'{"a": 1}\n', b"PAR1\0\0"])
def test_another_file_of_that_name_is_left_alone(out: Path, content: bytes) -> None:
    journal_path(out).write_bytes(content)
    with pytest.raises(JournalError, match="is no journal of a campaign"):
        Journal.open(out, SPECIFICATION)
    assert journal_path(out).read_bytes() == content


def test_another_version_is_refused(out: Path) -> None:
    import zlib

    header = {"format": "rapp.campaign.journal", "version": 9, "campaign_id": "c", "specification": {}}
    text = json.dumps(header, separators=(",", ":"))
    line = f'{text[:-1]},"crc32":"{zlib.crc32(text.encode()):08x}"}}\n'
    journal_path(out).write_text(line)
    with pytest.raises(JournalError, match="format version 9, but this rapp reads version 1"):
        Journal.open(out, SPECIFICATION)


def test_another_specification_is_refused_and_says_what_differs(out: Path) -> None:
    filled(out)
    other = SPECIFICATION | {"seed": 3, "sm_pct": [100.0], "device": {"device": "A"}, "networks": {"b": "c"}}
    with pytest.raises(ConfigError) as caught:
        Journal.open(out, other)
    message = str(caught.value)
    assert "networks.net was abc and is not there; networks.b was not there and is c" in message
    assert "sm_pct was 50,100 and is 100 and 2 more differences" in message
    assert "another --out" in message
    with Journal.open(out, SPECIFICATION) as journal:
        assert len(journal.outcomes) == 4


def test_failed_points_can_be_tried_again(out: Path) -> None:
    with Journal.open(out, SPECIFICATION) as journal:
        journal.append(outcome(0))
        journal.append(outcome(1, Status.FAILED))
    with Journal.open(out, SPECIFICATION) as journal:
        assert len(journal.outcomes) == 2
    with Journal.open(out, SPECIFICATION, retry_failed=True) as journal:
        assert list(journal.outcomes.values()) == [outcome(0)]
        journal.append(outcome(1))
    with Journal.open(out, SPECIFICATION) as journal:
        assert [one.status for one in journal.outcomes.values()] == [Status.OK, Status.OK]


def test_a_second_campaign_on_the_same_table_is_refused(out: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.parquet"
    link.symlink_to(out)
    with Journal.open(out, SPECIFICATION) as journal:
        for name in (out, link):
            with pytest.raises(RappError, match=r"another campaign is writing .*another --out"):
                Journal.open(name, SPECIFICATION)
        journal.append(outcome(0))
    with Journal.open(link, SPECIFICATION) as journal:
        assert len(journal.outcomes) == 1


def test_a_killed_campaign_lets_go_of_its_lock(out: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def hold() -> None:
        with Journal.open(out, SPECIFICATION) as journal:
            journal.append(outcome(0))
            ready.set()
            signal.pause()

    process = context.Process(target=hold)
    process.start()
    assert ready.wait(20)
    with pytest.raises(RappError, match="another campaign"):
        Journal.open(out, SPECIFICATION)
    process.kill()
    process.join()
    with Journal.open(out, SPECIFICATION) as journal:
        assert len(journal.outcomes) == 1


def test_a_campaign_without_an_outcome_leaves_nothing(out: Path) -> None:
    with Journal.open(out, SPECIFICATION):
        assert journal_path(out).exists()
    assert list(out.parent.iterdir()) == []
    with Journal.open(out, SPECIFICATION | {"seed": 5}) as journal:
        journal.append(outcome(0))
    assert journal_path(out).exists()


def test_a_table_without_a_journal_is_not_touched(out: Path) -> None:
    out.write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"exists, and there is no profiles\.parquet\.journal"):
        Journal.open(out, SPECIFICATION)
    assert [path.name for path in out.parent.iterdir()] == ["profiles.parquet"]
    assert out.read_bytes() == b"precious"


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        Journal.open(tmp_path, SPECIFICATION)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RappError, match=r"x.journal: cannot be written: (Not a directory|File exists)"):
        Journal.open(file / "x", SPECIFICATION)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails as on a full disk, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_loses_the_point_in_flight_alone(out: Path) -> None:
    with Journal.open(out, SPECIFICATION) as journal:
        journal.append(outcome(0))
        size = journal_path(out).stat().st_size
        with largest_file(size + 50), pytest.raises(RappError) as caught:
            journal.append(outcome(1))
        assert "cannot be written: File too large; 1 points are safe in it" in str(caught.value)
        assert list(journal.outcomes.values()) == [outcome(0)]
        assert journal_path(out).stat().st_size == size, "the part that fitted is cut off"
    with Journal.open(out, SPECIFICATION) as journal:
        journal.append(outcome(1))
        assert len(journal.outcomes) == 2


def test_a_journal_that_is_no_file_is_refused(out: Path) -> None:
    journal_path(out).symlink_to("/dev/full")
    with pytest.raises(RappError, match="is not a regular file"):
        Journal.open(out, SPECIFICATION)
    assert journal_path(out).is_symlink()


def test_a_disk_that_is_full_from_the_start_is_told_before_anything_is_measured(out: Path) -> None:
    with largest_file(10), pytest.raises(RappError, match="cannot be written: File too large"):
        Journal.open(out, SPECIFICATION)
    assert list(out.parent.iterdir()) == []


def test_reading_takes_no_lock_and_makes_no_file(out: Path) -> None:
    assert read_journal(journal_path(out)) is None
    assert not journal_path(out).exists()
    with Journal.open(out, SPECIFICATION) as journal:
        journal.append(outcome(0))
        record = read_journal(journal_path(out))
        assert record is not None
        assert record.specification == SPECIFICATION
        assert list(record.outcomes.values()) == [outcome(0)]


def test_not_a_number_is_never_written(out: Path) -> None:
    with Journal.open(out, SPECIFICATION) as journal:
        bad = replace(outcome(0), measurement=replace(MEASURED, latency_ms=float("nan")))
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.append(bad)
        journal.append(outcome(1))
    with Journal.open(out, SPECIFICATION) as journal:
        assert len(journal.outcomes) == 1


def test_each_outcome_is_on_disk_before_append_returns(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synchronised.append(journal_path(out).stat().st_size)

    with Journal.open(out, SPECIFICATION) as journal:
        monkeypatch.setattr(os, "fsync", fsync)
        for number in range(3):
            journal.append(outcome(number))
            assert synchronised[-1] == journal_path(out).stat().st_size
        assert len(synchronised) == 3
