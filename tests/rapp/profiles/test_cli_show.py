"""`rapp profiles show` as a user runs it: maps on the terminal, pages and plots in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rapp.cli.profiles import app
from rapp.errors import ConfigError, MissingExtraError
from rapp.profiles import ProfileTable


@pytest.fixture
def file(grid_rows, tmp_path) -> Path:
    path = tmp_path / "in" / "some.parquet"
    ProfileTable.from_rows(grid_rows()).write(path)
    return path


def run(*arguments: object) -> str:
    """What a command printed on stdout; an expected outcome is raised."""
    ended = CliRunner().invoke(
        app, ["show", *map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "80"}
    )
    assert ended.exit_code == 0
    return ended.stdout


def test_a_report_is_written_whole(file, tmp_path):
    out = tmp_path / "out" / "page.html"
    text = run(file, "--report", out)
    assert f"written: {out}" in text.replace("\n", "")
    html = out.read_text()
    assert html.startswith("<!doctype html>")
    assert html.rstrip().endswith("</html>")
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    for network in ("resnet18", "vgg11"):
        assert network in text
        assert f"Latency of {network} at batch 8" in html


def test_networks_are_chosen_for_every_output(file, tmp_path):
    out = tmp_path / "page.html"
    text = run(file, "--networks", " vgg11,", "--report", out)
    assert "resnet18" not in text + out.read_text()
    content = json.loads(run(file, "--networks", "vgg11", "--json"))
    assert [one["network"] for one in content["settings"][0]["networks"]] == ["vgg11"]


def test_a_network_is_drawn(file):
    text = run(file, "--network", "vgg11")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("vgg11 · NVIDIA V100-16GB")
    # 2000 x batch / (SM + quota) ms, from the fixture.
    assert lines[2].split()[:5] == ["100", "16.0", "13.3", "11.4", "10.0"]
    assert lines[3].split()[5:] == ["50", "213", "160", "128", "107"]


def test_an_unknown_network_is_named_with_the_nearest(file):
    for option in ("--network", "--networks"):
        with pytest.raises(ConfigError, match=r"no network 'vgg1' \(near: vgg11\); it has 2$"):
            run(file, option, "vgg1")
    with pytest.raises(ConfigError, match="empty"):
        run(file, "--networks", " ,")


def test_a_plot_a_network(file, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "plots"
    run(file, "--plot", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["resnet18.png", "vgg11.png"]
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_plots_of_networks_with_odd_names(grid_rows, tmp_path):
    pytest.importorskip("matplotlib")
    from rapp.report.profiles_png import write_profile_pngs

    rows = grid_rows(networks=("../a b", ".._a_b"), sms=(50,))
    rows[-1] |= {"status": "failed", "reason": "time-out", "latency_ms": None}
    rows[-2]["derived"] = True
    written = write_profile_pngs(ProfileTable.from_rows(rows), tmp_path)
    assert [path.name for path in written] == [".._a_b.png", ".._a_b-2.png"]
    assert all(path.parent == tmp_path and path.is_file() for path in written)


def test_without_matplotlib_the_extra_is_named(file, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"rapp\[plot\]"):
        run(file, "--plot", tmp_path / "plots")
    assert not (tmp_path / "plots").exists()
