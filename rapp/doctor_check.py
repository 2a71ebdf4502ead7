"""One line of what `rapp doctor` reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """`missing` limits what can be done; `problem` is broken and gives exit code 2."""

    OK = "ok"
    MISSING = "missing"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Args:
        name: what was looked at.
        state: how it is.
        found: what was found, for a person.
        action: the next action, most often a command; None if there is nothing to do.
        facts: the same as `found`, for a program; units are in the keys.
    """

    name: str
    state: State
    found: str
    action: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
