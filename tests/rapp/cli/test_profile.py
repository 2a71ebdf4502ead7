"""`rapp profile` as a user runs it, on a replayed table."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from profiler.journal import Journal, journal_path
from rapp.graph import OperatorGraph
from rapp.profiles import ProfileTable
from rapp.types import ResourceGrid

Run = Callable[..., Any]
GRID = ResourceGrid((25, 50, 100), (20, 60, 100), (1, 2))
AXES = ("--sm", "25,50,100", "--quota", "20:100:40", "--batch", "1,2")
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def write_table(path: Path, grid: ResourceGrid = GRID, **changes: object) -> None:
    """Two networks with D = 4 ms x batch / SM share, under the gpu_time law."""
    rows = []
    for network in ("alpha", "beta"):
        for c in grid:
            device_ms = 4.0 * c.batch * 100 / c.sm_pct
            row: dict[str, object] = {
                "network": network, "graph_hash": network * 8, "device": "NVIDIA A100", "runtime": "ort-cuda",
                "precision": "fp32", "batch": c.batch, "sm_pct": c.sm_pct, "quota_pct": c.quota_pct,
                "quota_kind": "gpu_time", "window_ms": 40.0, "idle_ms": 0.0,
                "latency_ms": device_ms * 100 / c.quota_pct, "device_ms": device_ms, "derived": False,
                "status": "ok", "campaign_id": "c1", "anchor": False,
            }  # fmt: skip
            rows.append(row | changes)
    ProfileTable.from_rows(rows).write(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `table.parquet` to replay."""
    write_table(tmp_path / "table.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


EXACT = "replay:table.parquet?run=0&process=0"


def places(table: ProfileTable) -> Counter[tuple[str, float, float, int]]:
    rows = table.filter(anchor=False).arrow.to_pylist()
    return Counter((row["network"], row["sm_pct"], row["quota_pct"], row["batch"]) for row in rows)


def wanted(*networks: str, grid: ResourceGrid = GRID) -> Counter[tuple[str, float, float, int]]:
    return Counter((name, c.sm_pct, c.quota_pct, c.batch) for name in networks for c in grid)


def test_a_campaign_measures_the_whole_table(rapp: Run, folder: Path) -> None:
    done = rapp("profile", "--device", EXACT, "--out", "p.parquet", *AXES)
    printed = done.printed()
    table = ProfileTable.read("p.parquet")
    assert places(table) == wanted("alpha", "beta")
    assert len(table.filter(anchor=True)) == 6
    for row in table.arrow.to_pylist():
        assert row["latency_ms"] == pytest.approx(400 * row["batch"] / row["sm_pct"] * 100 / row["quota_pct"])
    assert "alpha" in printed
    assert "p.parquet: 42 rows" in printed
    assert "next: rapp train --profiles p.parquet --graphs FOLDER_OF_NETWORKS --out run" in printed
    assert "drift" in printed
    assert "warning" not in done.err
    again = rapp("profile", "--device", EXACT, "--out", "p.parquet", *AXES)
    assert "every point was measured before: nothing was run" in again.printed()
    assert ProfileTable.read("p.parquet") == table


def test_networks_by_name_by_option_and_by_file(rapp: Run, folder: Path) -> None:
    rapp("profile", "beta", "--device", EXACT, "--out", "one.parquet", *AXES).printed()
    assert ProfileTable.read("one.parquet").networks() == ["beta"]
    rapp("profile", "beta", "--networks", "alpha", "--device", EXACT, "--out", "two.parquet", *AXES).printed()
    assert ProfileTable.read("two.parquet").networks() == ["alpha", "beta"]
    file = LIGHT / "light_squeezenet.onnx"
    graph_hash = OperatorGraph.from_onnx(file).graph_hash
    write_table(folder / "table.parquet", graph_hash=graph_hash)
    done = rapp("profile", file, "--device", EXACT, "--out", "three.parquet", *AXES)
    assert ProfileTable.read("three.parquet").networks() == ["alpha"]
    assert f"--graphs {file.parent}" in done.printed() or "FOLDER_OF_NETWORKS" in done.printed()


def test_anchors_that_move_are_warned_of(rapp: Run, folder: Path) -> None:
    done = rapp("profile", "alpha", "--device", "replay:table.parquet?process=0.2", "--out", "p", *AXES)
    assert "warning: alpha: its anchors moved by" in done.err
    rows = ProfileTable.read("p")
    assert all('"anchor_drift_pct": 0' not in text for text in rows.column("software"))


def test_a_plan_measures_nothing(rapp: Run, folder: Path) -> None:
    printed = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--plan-only").printed()
    assert "36 points and 6 anchors to measure" in printed
    assert "assumed: 4 s a point" in printed
    assert sorted(path.name for path in folder.iterdir()) == ["table.parquet"]
    rapp("profile", "--device", EXACT, "--out", "p", *AXES)
    printed = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--plan-only").printed()
    assert "42 of them are in the journal" in printed
    assert "from 42 points of the journal" in printed


def test_quotas_are_derived_and_verified(rapp: Run, folder: Path) -> None:
    axes = ("--sm", "25,50,100", "--quota", "20,60,100", "--batch", "1,2", "--quota-mode", "derive")
    plan = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes, "--plan-only").printed()
    assert "10 points and 3 anchors" in plan
    printed = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes).printed()
    assert "derived off" in printed
    assert "0.0 %" in printed
    table = ProfileTable.read("p")
    assert places(table) == wanted("alpha")
    assert len(table.filter(derived=True)) == 8
    for row in table.arrow.to_pylist():
        assert row["latency_ms"] == pytest.approx(400 * row["batch"] / row["sm_pct"] * 100 / row["quota_pct"])


def test_derived_quotas_that_are_off_are_warned_of(rapp: Run, folder: Path) -> None:
    write_table(folder / "table.parquet", device_ms=30.0)
    done = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *AXES, "--quota-mode", "derive")
    assert done.code == 0
    assert "warning: alpha: what was derived is off by" in done.err
    assert "consider --quota-mode measure" in done.err


def test_a_budget_ends_cleanly_and_the_rest_comes_later(rapp: Run, folder: Path) -> None:
    done = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--budget-minutes", "0.2")
    assert done.code == 0
    assert "stopped (budget) with" in done.err
    assert "the same command goes on" in done.err
    table = ProfileTable.read("p")
    assert places(table) == wanted("alpha", "beta")
    assert set(table.filter(status="skipped").column("reason")) == {"not measured: budget"}
    rapp("profile", "--device", EXACT, "--out", "p", *AXES).printed()
    assert set(ProfileTable.read("p").column("status")) == {"ok"}


def test_a_budget_for_nothing_leaves_nothing(rapp: Run, folder: Path) -> None:
    done = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--budget-minutes", "0")
    assert done.code == 0
    assert "budget: nothing was measured, so there is no table" in done.err
    assert sorted(path.name for path in folder.iterdir()) == ["table.parquet"]


def test_points_that_the_table_lacks_fail_and_say_so(rapp: Run, folder: Path) -> None:
    axes = ("--sm", "25,30,100", "--quota", "20,30,100", "--batch", "1,4")
    done = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes)
    assert done.code == 0
    assert "failed: alpha, SM 100 %, quota 30 %, batch 1: unsupported: the table has no point" in done.err
    table = ProfileTable.read("p").filter(anchor=False)
    assert Counter(table.column("status")) == {"ok": 4, "failed": 8, "skipped": 6}
    assert set(table.filter(status="skipped").column("reason")) == {"the table has no point at SM 30 %"}
    before = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes)
    assert "nothing was run" in before.out
    again = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes, "--retry-failed")
    assert "nothing was run" not in again.out
    assert Counter(ProfileTable.read("p").filter(anchor=False).column("status")) == {
        "ok": 4, "failed": 8, "skipped": 6,
    }  # fmt: skip


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
