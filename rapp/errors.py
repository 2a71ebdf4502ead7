"""Expected outcomes as exceptions.

Whatever a user can cause or meet (a bad file, a missing extra, an objective that
cannot be met) is a subclass of :class:`RappError`: the commands print its message
on one line and exit with code 2. Any other exception is a bug and keeps its
traceback.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any


class RappError(Exception):
    """Base of everything that RaPP raises on purpose.

    The message is one line for a person. It says what is wrong and, where there
    is one, the next action.
    """


class DataError(RappError):
    """A file that holds what it must not hold, or lacks what it must have."""

    def __init__(self, path: str | Path, reason: str, *, where: str | None = None) -> None:
        self.path, self.reason, self.where = str(path), reason, where
        place = f"{path}: {where}" if where else str(path)
        super().__init__(f"{place}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions unpickle from their message alone, which would lose an error of a worker process.
        return partial(type(self), where=self.where), (self.path, self.reason)


class ProfileError(DataError):
    """A profile table, or a file to import as one, that is not valid."""


class GraphError(DataError):
    """An ONNX file from which no operator graph can be made."""


class UnknownShapeError(GraphError):
    """Shape inference left an operator's output without a shape."""


class BatchRewriteError(GraphError):
    """A network with a fixed batch that cannot be rewritten to another batch."""


class ArtifactError(DataError):
    """A predictor artifact that is incomplete, damaged or of another version."""


class CalibrationError(RappError):
    """Measured points that do not belong to the network or predictor at hand."""


class MissingExtraError(RappError):
    """An optional dependency that the call needs is not installed."""

    def __init__(self, what: str, *extras: str) -> None:
        self.what, self.extras = what, extras
        choices = " or ".join(f"pip install 'rapp[{extra}]'" for extra in extras)
        super().__init__(f"{what} is not installed: {choices}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, *self.extras)


class InfeasibleError(RappError):
    """No configuration meets the objective; the message names the nearest."""


class ConfigError(RappError):
    """An argument out of its range, or options that exclude each other."""
