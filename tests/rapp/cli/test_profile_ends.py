"""How `rapp profile` ends when something is wrong, and that the same command goes on: on a replayed table."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from replayed import AXES, EXACT, folder, places, wanted, write_table

from profiler.journal import Journal, journal_path
from rapp.profiles import ProfileTable
from rapp.types import ResourceGrid

__all__ = ["folder"]

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("alpa",), "the table has no network 'alpa' (near: alpha)"),
        (("nothere.onnx",), "nothere.onnx: No such file or directory"),
        (("broken.onnx",), "broken.onnx: is not an ONNX file"),
        (
            ("--device", "gpu"),
            "--device gpu: there is no such device; write cuda, cuda:INDEX or cuda:UUID; cpu",
        ),
        (("--device", "replay:none.parquet"), "none.parquet: no such file"),
        (("--device", "replay:broken.onnx"), "broken.onnx: is not a Parquet file"),
        (("--device", f"{EXACT}&speed=2"), "replay: no parameter 'speed'"),
        (("--device", "cpu"), "no network to profile: give ONNX files"),
        (("--device", "cpu", "--networks", "alpha"), "--networks names networks of a replayed table"),
        (("--out", "."), ". is a folder: --out names the file to write"),
        (("--out", "table.parquet"), "table.parquet exists, and there is no table.parquet.journal"),
        (("--sm", "0:50:10"), "--sm 0:50:10: 0 is no percentage in (0, 100]"),
        (("--idle-ms", "5"), "--idle-ms 5: table.parquet was measured with 0, and a replay cannot change it"),
        (("--adaptive",), "--adaptive and --predictor ARTIFACT belong together"),
        (("--predictor", "x"), "--adaptive and --predictor ARTIFACT belong together"),
        (
            ("--adaptive", "--predictor", "x", "--quota-mode", "derive"),
            "so that --quota-mode derive has no place",
        ),
        (("--adaptive", "--predictor", "x"), "--predictor x: is no predictor artifact"),
        (("--sm", "30"), "no point could be measured: the table has no point at SM 30 %"),
    ],
)
def test_a_mistake_is_one_line(rapp: Run, folder: Path, arguments: tuple[str, ...], told: str) -> None:
    (folder / "broken.onnx").write_text("not a network")
    options = {"--device": EXACT, "--out": "p.parquet", "--sm": "100"}
    given = list(arguments)
    for name in [name for name in options if name in given]:
        del options[name]
    defaults = [part for pair in options.items() for part in pair]
    done = rapp("profile", *given, *defaults)
    assert done.code == 2
    assert told in done.err.splitlines()[-1], done.err
    if "no point could be" not in told:
        assert told in done.line()
        assert not (folder / "p.parquet").exists()
        assert not (folder / "p.parquet.journal").exists()


def test_a_launch_gate_cannot_be_derived(rapp: Run, folder: Path) -> None:
    write_table(folder / "table.parquet", quota_kind="launch_gate")
    done = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--quota-mode", "derive")
    assert "those of NVIDIA A100 are launch_gate: use --quota-mode measure" in done.line()


def test_device_time_must_be_told_to_derive(rapp: Run, folder: Path) -> None:
    write_table(folder / "table.parquet", device_ms=None)
    done = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--quota-mode", "derive")
    assert done.code == 2
    assert "which this device does not tell: use --quota-mode measure" in done.err
    rapp("profile", "--device", EXACT, "--out", "p", *AXES).printed()


def test_another_campaign_on_the_same_table_is_refused(rapp: Run, folder: Path) -> None:
    rapp("profile", "--device", EXACT, "--out", "p", *AXES)
    before = Path("p").read_bytes(), journal_path("p").read_bytes()
    line = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *AXES, "--seed", "5").line()
    assert "networks.beta was " in line
    assert "seed was 0 and is 5" in line
    assert (Path("p").read_bytes(), journal_path("p").read_bytes()) == before


def test_two_at_a_time_are_refused(rapp: Run, folder: Path) -> None:
    with Journal.open("p", {}):
        line = rapp("profile", "--device", EXACT, "--out", "p", *AXES).line()
    assert line == "another campaign is writing p: wait until it has ended, or give another --out"


def test_a_damaged_journal_is_told(rapp: Run, folder: Path) -> None:
    rapp("profile", "--device", EXACT, "--out", "p", *AXES)
    content = bytearray(journal_path("p").read_bytes())
    content[len(content) // 2] ^= 1
    journal_path("p").write_bytes(content)
    assert "p.journal: line " in rapp("profile", "--device", EXACT, "--out", "p", *AXES).line()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from rapp.cli.main import main; main()", "profile", *map(str, arguments)]


def started(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """The command in a process of its own, once its first points are in the journal."""
    process = subprocess.Popen(
        command(*arguments), cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 60
    journal = folder / "p.journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    return process


SLOW = f"{EXACT}&sleep=0.2"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_point_in_flight(rapp: Run, folder: Path, number: int) -> None:
    process = started(folder, "--device", SLOW, "--out", "p", *AXES)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "stopped (interrupted) with" in err
    assert "Traceback" not in out + err
    table = ProfileTable.read("p")
    assert places(table) == wanted("alpha", "beta")
    assert set(table.filter(status="skipped").column("reason")) == {"not measured: interrupted"}
    assert len(table.ok()) >= 3
    rapp("profile", "--device", EXACT, "--out", "p", *AXES).printed()
    assert set(ProfileTable.read("p").column("status")) == {"ok"}


def test_a_second_signal_abandons_the_point_in_flight(folder: Path) -> None:
    """A batch of the slow point takes 40 s of real time."""
    slow = f"{EXACT}&sleep=500"
    process = subprocess.Popen(
        command("--device", slow, "--out", "p", *AXES), cwd=folder, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not (folder / "p.journal").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert sorted(path.name for path in folder.iterdir()) == ["table.parquet"], "nothing was measured"


def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(rapp: Run, folder: Path) -> None:
    def little_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))

    done = subprocess.run(
        command("--device", EXACT, "--out", "p", *AXES),
        cwd=folder, capture_output=True, text=True, check=False, preexec_fn=little_disk,
    )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "p.journal: cannot be written: File too large;" in last
    assert "points are safe in it, and the same command goes on after them" in last
    assert not Path("p").exists()
    rapp("profile", "--device", EXACT, "--out", "p", *AXES).printed()
    assert places(ProfileTable.read("p")) == wanted("alpha", "beta")


def test_twenty_kills_at_random_lose_nothing_and_measure_nothing_twice(rapp: Run, folder: Path) -> None:
    grid = ResourceGrid((20, 40, 60, 80, 100), range(10, 101, 10), (1, 2, 4))
    write_table(folder / "table.parquet", grid)
    axes = ("--sm", "20:100:20", "--quota", "10:100:10", "--batch", "1,2,4", "--out", "p")
    # A point takes some 30 ms, so that the campaign outlives its killers.
    slow = (f"{EXACT}&sleep=0.02", "alpha", *axes)
    script = Path(__file__).with_name("kill_profile.py")
    done = subprocess.run(
        [sys.executable, script, "7", "20", "--", "profile", "--device", *slow],
        cwd=folder, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sizes = [int(line) for line in done.stdout.splitlines()]
    assert len(sizes) == 20
    assert sizes == sorted(sizes), "a journal loses nothing"
    assert len(set(sizes)) > 5, "kills fell between points"
    rapp("profile", "alpha", "--device", EXACT, *axes).printed()
    table = ProfileTable.read("p")
    assert places(table) == wanted("alpha", grid=grid)
    assert len(table.filter(anchor=True)) == 3
    assert set(table.column("status")) == {"ok"}
    assert journal_path("p").read_bytes().count(b"\n") == 1 + len(table), "nothing twice"
