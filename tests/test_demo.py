"""`scripts/demo.py` as `make demo` runs it, with the smaller sweep: really measured, trained and asked."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rapp import Predictor
from rapp.evaluation import evaluate
from rapp.profiles import ProfileTable
from rapp.runtime.cores import cores_of_share, usable_cores

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from demo_sweep import QUICK, TRAINED, UNSEEN, partitions

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ARTIFACT = Path("models") / "v100"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@dataclass(frozen=True)
class Shown:
    """What a run printed and wrote."""

    printed: str
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / QUICK.folder

    @property
    def page(self) -> str:
        return (self.out / "demo.html").read_text("utf-8")

    @property
    def table(self) -> ProfileTable:
        return ProfileTable.read(self.folder / "profiles.parquet")

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command that ran, as a reader would paste them."""
        joined = self.printed.split("\nNext ")[0].replace("\\\n", " ")
        return [shlex.split(line)[1:] for line in re.findall(r"^\$ (rapp .*)$", joined, re.MULTILINE)]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    if not (ROOT / ARTIFACT / "card.json").is_file():
        pytest.skip("models/v100 is not there")
    out = tmp_path_factory.mktemp("out")
    done = run("scripts/demo.py", "--quick", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return Shown(done.stdout, out)


def test_each_step_is_a_command(shown: Shown) -> None:
    names = [words[0] for words in shown.commands]
    machine = "profile profiles train export evaluate evaluate calibrate calibrate recommend profile"
    assert names == [*machine.split(), "graph", "predict", "predict", "recommend"]
    steps = re.findall(r"^(\d+) of 13  ", shown.printed, re.MULTILINE)
    assert steps == [str(step) for step in range(1, 14)]


def test_every_point_is_really_measured(shown: Shown) -> None:
    table = shown.table
    points = table.filter(status="ok", anchor=False)
    of_each = len(partitions(len(usable_cores()))) * len(QUICK.quota_pct) * len(QUICK.batch)
    assert {name: len(points.filter(network=name)) for name in points.networks()} == dict.fromkeys(
        (*TRAINED, UNSEEN), of_each
    )
    assert set(table.column("runtime").tolist()) == {"ort-cpu"}
    assert min(points.column("n_samples").tolist()) >= 3
    # Not three times the same network: ResNet-50 has some ten times the work of the others.
    full = points.filter(sm_pct=100.0, quota_pct=100.0, batch=1)
    latency = dict(zip(full.column("network").tolist(), full.column("latency_ms").tolist(), strict=True))
    assert latency[UNSEEN] > 2 * max(latency[name] for name in TRAINED)


def test_what_was_measured_is_not_measured_again(shown: Shown) -> None:
    journal = shown.folder / "profiles.parquet.journal"
    before = journal.read_bytes()
    done = run("-c", "from rapp.cli.main import main; main()", *shown.commands[0])
    assert done.returncode == 0, done.stderr
    assert "every point was measured before: nothing was run" in done.stdout
    assert journal.read_bytes() == before


def test_the_error_is_that_of_a_network_which_the_training_has_not_seen(shown: Shown) -> None:
    predictor = Predictor.load(shown.folder / "predictor")
    assert {network.name for network in predictor.card.networks} == set(TRAINED)
    errors = []
    for points in (0, QUICK.points):
        found = evaluate(predictor, shown.table, shown.folder / "graphs", points=points)
        assert [one.network for one, _ in found.scored] == [UNSEEN]
        assert len(found.rows) == len(shown.table.filter(network=UNSEEN, anchor=False)) - points
        errors.append(found.pooled.mape)
        assert not found.rows.extrapolated.any()
    said = [float(value) for value in re.findall(r"mean error over rows +([\d.]+) %", shown.printed)]
    assert said == pytest.approx(errors, abs=0.006)
    for value in errors:
        assert f"<b>{value:.1f} %</b>" in shown.page


def test_the_calibration_rests_on_measured_points(shown: Shown) -> None:
    rows = list(csv.DictReader((shown.folder / "points.csv").read_text().splitlines()))
    assert len(rows) == QUICK.points
    for row in rows:
        at = {
            "sm_pct": float(row["sm_pct"]),
            "quota_pct": float(row["quota_pct"]),
            "batch": int(row["batch"]),
        }
        (measured,) = shown.table.filter(network=UNSEEN, anchor=False, **at).column("latency_ms").tolist()
        assert float(row["latency_ms"]) == measured


def test_what_is_recommended_is_measured(shown: Shown) -> None:
    (out,) = shown.folder.glob("check-*.parquet")
    (row,) = ProfileTable.read(out).arrow.to_pylist()
    # The first row of the table of choices.
    best = re.search(
        r"^ +([\d.]+) +([\d.]+) +(\d+) +\d+ +[\d.]+ .*$", _after(shown, "recommend"), re.MULTILINE
    )
    assert best is not None
    assert [float(value) for value in best.groups()] == [row["sm_pct"], row["quota_pct"], row["batch"]]
    said = re.search(r"Measured: ([\d.,]+) ms, ([+-]\d+) % off", shown.printed)
    assert said is not None
    assert float(said.group(1).replace(",", "")) == pytest.approx(row["latency_ms"], rel=0.01)
    assert f"<b>Measured afterwards:</b> {said.group(1)} ms" in shown.page


def _after(shown: Shown, command: str) -> str:
    return shown.printed.split(f"$ rapp {command} ", 1)[1]


def test_it_answers_for_a_v100_too(shown: Shown) -> None:
    for network in (UNSEEN, TRAINED[-1]):
        assert f"{network} on NVIDIA V100" in shown.printed
    (share,) = re.findall(
        r"100 requests/s within 60 ms.*?cheapest sets aside ([\d.]+) GPUs", shown.printed, re.S
    )
    # The same from Python: the share stands in the row of that network, on the terminal and on the page.
    row = re.findall(rf"^ *{UNSEEN} +\d.*$", shown.printed, re.MULTILINE)[-1]
    assert share in row.split()
    assert re.search(rf"<td>{UNSEEN}</td>(?:<td>[^<]*</td>){{4}}<td><b>{share}</b>", shown.page)


def test_it_fits_a_terminal_of_80_columns(shown: Shown) -> None:
    # Paths are the reader's own, and are not broken.
    assert not [line for line in shown.printed.splitlines() if len(line) > 80 and "/" not in line]


def test_the_page_needs_no_other_file(shown: Shown) -> None:
    page = shown.page
    for part in ("measured", "predicted", "recommended", "v100"):
        assert page.count(f'<section id="{part}">') == 1
        assert f'href="#{part}"' in page
    # Two of errors, and two of each recommendation, beside those of the profiles.
    assert page.count('<svg class="plot"') >= 6
    for network in (*TRAINED, UNSEEN):
        assert len(set(re.findall(rf'aria-label="(Latency of {network} at batch \d+)', page))) == len(
            QUICK.batch
        )
    assert not re.findall(r'src="|href="[^#]|url\(|@import', page)


def test_the_gpu_alone_takes_seconds_and_has_its_page(tmp_path: Path) -> None:
    if not (ROOT / ARTIFACT / "card.json").is_file():
        pytest.skip("models/v100 is not there")
    done = run("scripts/demo.py", "--only", "v100", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.parquet"))
    assert f"{UNSEEN}: 100 requests/s within 60 ms" in (tmp_path / "demo.html").read_text("utf-8")


def test_what_is_missing_is_one_line_before_anything_is_measured(tmp_path: Path) -> None:
    done = run("scripts/demo.py", "--artifact", tmp_path / "no", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'no'}: no such folder")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.journal"))


@pytest.mark.parametrize("n_cores", [*range(1, 33), 61, 64, 96, 128, 192])
def test_partitions_are_whole_numbers_of_cores(n_cores: int) -> None:
    counts = [cores_of_share(float(share), n_cores) for share in partitions(n_cores)]
    assert counts == sorted({max(1, n_cores // 4), max(1, n_cores // 2), n_cores})
