"""`rapp` ends as it promises: an expected outcome, a bug, an interruption, a reader that went away."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from typer.testing import CliRunner

import rapp
from rapp.cli.main import app

PROGRAM = """
    import sys, typer
    from rapp.cli import main as cli
    from rapp.errors import DataError

    @cli.app.command()
    def probe(kind: str) -> None:
        {body}

    sys.argv = ["rapp", "probe", "x"]
    cli.main()
"""


def program(body: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(PROGRAM).format(body=body)]


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program(body), capture_output=True, text=True, timeout=60, check=False)


def test_an_expected_outcome_is_one_line_and_2() -> None:
    done = run("raise DataError('a' * 90 + '.onnx', 'two' + chr(10) + 'lines [red]')")
    assert done.returncode == 2
    assert done.stderr == f"error: {'a' * 90}.onnx: two lines [red]\n"
    assert done.stdout == ""


def test_a_bug_keeps_its_traceback() -> None:
    done = run("raise ZeroDivisionError('of ours')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.endswith("ZeroDivisionError: of ours\n")


def test_an_interruption_is_one_word_and_130() -> None:
    done = run("raise KeyboardInterrupt")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_ctrl_c_in_a_running_command() -> None:
    done = run("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(30)")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    "body",
    [
        "[typer.echo('line ' * 1000) for _ in range(1000)]",
        "[print('line ' * 1000) for _ in range(1000)]",
    ],
)
def test_a_reader_that_went_away_is_no_error(body: str) -> None:
    with subprocess.Popen(program(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == b"line"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_another_broken_pipe_is_a_bug_with_a_traceback() -> None:
    done = run("import os; r, w = os.pipe(); os.close(r); os.write(w, b'x')")
    assert done.returncode == 1
    assert "BrokenPipeError" in done.stderr
    assert "a pipe broke that is not the output of this command" in done.stderr


def test_a_wrong_option_is_2() -> None:
    assert CliRunner().invoke(app, ["--no-such-option"]).exit_code == 2


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_command(option: str) -> None:
    done = CliRunner().invoke(app, [option])
    assert done.exit_code == 0
    for command in ("graph", "profiles", "doctor"):
        assert f" {command} " in done.output


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"rapp {rapp.__version__}\n"
