"""How the demonstration speaks: numbered steps, commands that can be pasted, sentences; 80 columns."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.text import Text

from rapp.cli.main import app

WIDTH = 80


class Terminal:
    """Prints the steps and runs their commands.

    Args:
        steps: how many there will be.
    """

    def __init__(self, steps: int) -> None:
        width = min(WIDTH, Console().width)
        os.environ["COLUMNS"] = str(width)  # the commands print for the same width
        self._console = Console(width=width, highlight=False, emoji=False)
        self._steps, self._step = steps, 0
        self._ran = False  # a command of this step, so that the next one needs room above it
        self._begun_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning, s."""
        return time.monotonic() - self._begun_s

    def head(self, title: str, text: str) -> None:
        """Announce the next step, and how to read its answer."""
        self._step += 1
        self._ran = False
        line = Text(f"{self._step} of {self._steps}  ", style="dim").append(title, style="bold cyan")
        self._console.print()
        self._console.print(Rule(line, align="left", style="dim"))
        self.say(text)

    def say(self, text: str, style: str = "default") -> None:
        """A paragraph."""
        self._console.print(Text(text, style=style))
        self._console.print()

    def show(self, what: RenderableType) -> None:
        """Anything that rich can print."""
        self._console.print(what)

    def command(self, *arguments: str | Path) -> float:
        """Show a `rapp` command and run it in this process; returns the seconds that it took.

        Raises:
            SystemExit: it was interrupted, or ended with a code of its own.
        """
        words = [str(argument) for argument in arguments]
        if self._ran:
            self._console.print()
        self._ran = True
        for line in _lines(words):
            self._console.print(Text(line, style="green"), soft_wrap=True)
        self._console.print()
        sys.stdout.flush()  # what the command writes on stderr comes after it, in a file too
        begun_s = time.monotonic()
        code = app(args=words, standalone_mode=False)
        if code:
            sys.exit(code)
        return time.monotonic() - begun_s

    def python(self, *code: str) -> None:
        """Show lines of Python."""
        for line in code:
            self._console.print(Text(f">>> {line}", style="green"), soft_wrap=True)
        self._console.print()

    def end(self, commands: tuple[tuple[str, str], ...], *lines: str) -> None:
        """What to do next, and last words."""
        self._console.print()
        self._console.print(Rule(Text("Next", style="bold cyan"), align="left", style="dim"))
        column = 3 + max(len(command) for command, _ in commands)
        for command, what in commands:
            shown = Text("$ ", style="dim").append(f"{command:{column}}", style="green")
            self._console.print(shown.append(what, style="default"), soft_wrap=True)
        for line in lines:
            self._console.print()
            self._console.print(line, soft_wrap=True, markup=False)


def _lines(words: list[str]) -> list[str]:
    """The command on as many lines as it needs; an option stays beside its value."""
    parts: list[str] = []
    for word in words:
        if parts and not word.startswith("--") and parts[-1].startswith("--") and " " not in parts[-1]:
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    lines = ["$ rapp"]
    for part in parts:
        if len(lines[-1]) + len(part) + 1 > WIDTH - 2 and lines[-1] != "$ rapp":
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return lines
