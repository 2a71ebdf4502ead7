"""What README.md and docs/predictor.md say works: commands, options, files, listings and their output."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import typer

from rapp.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/predictor.md", "models/README.md")
ARTIFACT = ROOT / "models" / "v100" / "card.json"

needs_artifact = pytest.mark.skipif(not ARTIFACT.is_file(), reason="models/v100 is not there")

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")
PLACE = re.compile(r"^(?:models|datasets|scripts|docs|rapp|tests)/[\w./-]*$")


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def listings(page: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text(page)) if name == language]


def spans(page: str) -> list[str]:
    return SPAN.findall(FENCE.sub("", text(page)))


def command_lines(page: str) -> list[str]:
    lines = [line.strip() for body in listings(page, "bash") for line in body.splitlines()]
    return [line for line in [*lines, *spans(page)] if line.startswith("rapp ")]


def resolved(words: list[str]) -> tuple[object, list[str]]:
    """The command that the words after `rapp` name, and what is left of them."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"rapp has no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    lines = command_lines(page)
    assert lines
    for line in lines:
        words = shlex.split(line.split(">")[0], comments=True)[1:]
        command, rest = resolved(words)
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        for word in rest:
            assert not word.startswith("--") or word in known, f"{page}: {line}: no option {word}"


@pytest.mark.parametrize("page", PAGES)
def test_options_named_on_their_own_belong_to_the_command_beside_them(page: str) -> None:
    for line in FENCE.sub("", text(page)).splitlines():
        named = [span for span in SPAN.findall(line) if span.startswith("--")]
        if not named or named == ["--help"]:
            continue
        beside = [resolved(span.split()[1:])[0] for span in SPAN.findall(line) if span.startswith("rapp ")]
        assert beside, f"{page}: {line}"
        known = {name for command in beside for parameter in command.params for name in parameter.opts}
        missing = {span.split()[0] for span in named} - known
        assert not missing, f"{page}: {line}"


def test_every_command_is_in_the_table() -> None:
    named = {" ".join(span.split()[1:3]) for span in spans("README.md") if span.startswith("rapp ")}
    for name, command in typer.main.get_command(app).commands.items():
        for full in [f"{name} {inner}" for inner in getattr(command, "commands", {})] or [name]:
            assert any(one == full or one.split()[:1] == [full] for one in named), f"rapp {full}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    folder = (ROOT / page).parent
    for link in LINK.findall(FENCE.sub("", text(page))):
        assert (folder / link.partition("#")[0]).exists(), f"{page}: link to {link}"
    for span in spans(page):
        for word in span.split():
            # Reading `rapp/` alone, not a module path or a glob.
            if PLACE.match(word) and not word.startswith("models/v100"):
                assert (ROOT / word).exists(), f"{page}: names {word}"


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    named = {line.split()[1] for body in listings("README.md", "bash") for line in body.splitlines()
             if line.startswith("make ")}  # fmt: skip
    assert {"demo", "test"} <= named <= targets


def numbers(said: str) -> list[float]:
    return [float(value) for value in re.findall(r"\d+(?:\.\d+)?", said)]


@needs_artifact
def test_the_example_prints_what_is_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (program,), (expected,) = listings("README.md", "python"), listings("README.md", "text")
    assert len(program.splitlines()) <= 12
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "README.md", "exec"), {})
    said = printed.getvalue()
    # Words exactly; figures within what another processor's arithmetic may change.
    assert re.sub(r"[\d.]+", "#", said) == re.sub(r"[\d.]+", "#", expected), f"README.md should say:\n{said}"
    assert numbers(said) == pytest.approx(numbers(expected), rel=0.01), f"README.md should say:\n{said}"


@needs_artifact
def test_the_listings_of_the_predictor_page_run_and_agree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("models", "datasets"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    there: dict[str, object] = {}
    for program in listings("docs/predictor.md", "python"):
        exec(compile(program, "docs/predictor.md", "exec"), there)
    # The last listing asks ONNX Runtime alone; Python must say the same of both configurations.
    network, config, kinds = there["network"], there["ResourceConfig"], there["QuotaKind"]
    asked = ((config(50, 40, 4), kinds.LAUNCH_GATE), (config(20, 100, 8), kinds.GPU_TIME))
    for place, (where, kind) in enumerate(asked):
        answer = network.latency(where, quota_kind=kind, idle_ms=0.0)
        for name in ("mean_ms", "low_ms", "high_ms"):
            assert there[name][place] == pytest.approx(getattr(answer, name), rel=1e-4), (name, where)
    assert there["calibrated"].points == there["again"].points
