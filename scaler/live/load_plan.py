"""What a load's options mean for a trace: which functions it goes to, and their objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rapp.errors import ConfigError
from scaler.trace import Trace


def functions_of(trace: Trace, chosen: Sequence[str]) -> list[str]:
    """The functions to send to: those chosen, else those that the trace names.

    Raises:
        ConfigError: none is chosen and the trace names none, or one is chosen that it has no load for.
    """
    named = trace.functions
    if not chosen and not named:
        raise ConfigError(f"{trace.source} names no function: say --function NAME")
    for name in chosen:
        if None not in trace.load and name not in named:
            raise ConfigError(f"--function {name}: {trace.source} has load for {', '.join(named)} alone")
    return list(dict.fromkeys(chosen or named))


def objectives(given: Sequence[str], functions: Sequence[str]) -> dict[str, float]:
    """Objectives by function, ms, from texts `60` (all of them) and `NAME=60`, of which the latter win.

    Raises:
        ConfigError: no number above 0, or a function that is not among `functions`.
    """
    for_all: dict[str, float] = {}
    own: dict[str, float] = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        try:
            value_ms = float(number)
        except ValueError:
            value_ms = math.nan
        if not (math.isfinite(value_ms) and value_ms > 0):
            raise ConfigError(f"--slo-ms {text}: write 60 or NAME=60, in ms, above 0")
        if not equals:
            for_all = dict.fromkeys(functions, value_ms)
        elif name in functions:
            own[name] = value_ms
        else:
            raise ConfigError(f"--slo-ms {text}: the load goes to {', '.join(functions)}")
    return for_all | own
