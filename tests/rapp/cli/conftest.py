"""Runs `rapp` as a user does, in this process, so that a test can put another predictor behind it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code and both outputs."""

    code: int
    out: str
    err: str

    def line(self) -> str:
        """The one line of an expected outcome."""
        assert self.code == 2, self.err
        assert self.out == ""
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("error: ").rstrip("\n")

    def printed(self) -> str:
        """What a command that ended well printed: it fits 80 columns, but for paths of tests."""
        assert self.code == 0, self.err
        lines = [line for line in self.out.splitlines() if tempfile.gettempdir() not in line]
        assert max(map(len, lines), default=0) <= 80, self.out
        return self.out


@pytest.fixture
def rapp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`rapp("predict", artifact, file)`: the command, its exit code and outputs."""
    from rapp.cli.main import main

    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["rapp", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        outputs = capsys.readouterr()
        return Ended(code, outputs.out, outputs.err)

    return run
