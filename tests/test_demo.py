"""`scripts/demo.py` as `make demo` runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARTIFACT = Path("models") / "v100"
NOTE = "measured points make this answer better: `rapp calibrate models/v100 --list 5` says which"


def demo(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/demo.py", *map(str, options)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What it printed, and the page that it wrote."""
    if not (ROOT / ARTIFACT / "card.json").is_file():
        pytest.skip("models/v100 is not there")
    out = tmp_path_factory.mktemp("out")
    done = demo("--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    # What `rapp predict` adds of its own to an answer that rests on no measured point.
    assert set(done.stderr.splitlines()) == {NOTE}
    return done.stdout, (out / "demo.html").read_text("utf-8")


def test_it_answers_for_both_networks_and_recommends(shown: tuple[str, str]) -> None:
    printed, _ = shown
    for network in ("light_resnet50", "light_squeezenet"):
        assert f"{network} on NVIDIA V100" in printed
    assert "100 requests/s within 60 ms" in printed
    commands = re.findall(r"^\$ rapp (\w+)", printed, re.MULTILINE)
    assert commands[:4] == ["graph", "predict", "predict", "recommend"]
    best = re.search(r"cheapest sets aside ([\d.]+) GPUs", printed)
    assert best is not None
    # The same from Python: the share stands in the row of that network.
    (row,) = re.findall(r"^ *light_resnet50 +\d.*$", printed, re.MULTILINE)
    assert best.group(1) in row.split()


def test_it_fits_a_terminal_of_80_columns(shown: tuple[str, str]) -> None:
    printed, _ = shown
    # Paths are the reader's own, and are not broken.
    long = [line for line in printed.splitlines() if len(line) > 80 and "/" not in line]
    assert not long


def test_the_page_needs_no_other_file(shown: tuple[str, str]) -> None:
    _, page = shown
    assert "light_resnet50: 100 requests/s within 60 ms" in page
    assert page.count("<svg") == 2
    assert not re.findall(r'(?:src|href)="|url\(|@import', page)


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    done = demo("--artifact", tmp_path / "no", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'no'}: no such folder")
    assert "Traceback" not in done.stderr
