"""Texts of the command line's options as the values that they stand for; each fault is one clear line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from rapp.errors import ConfigError
from scaler.policies import registry
from scaler.replay.chaos import Chaos
from scaler.replay.physics import Physics

Value = TypeVar("Value", int, float)


def policies(text: str) -> list[str]:
    """Names of policies, `a,b,c`.

    Raises:
        ConfigError: none, one that there is not, or one twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError("--policy names none")
    for name in names:
        if name not in registry.NAMES:
            registry.policy(name)  # says which is near
        if names.count(name) > 1:
            raise ConfigError(f"--policy names {name} twice")
    return names


def seeds(text: str) -> list[int]:
    """Seeds, `0,1,2`.

    Raises:
        ConfigError: none, one twice, or one that is no whole number of 0 or more.
    """
    found = _numbers("--seeds", text, int)
    if not found or len(set(found)) < len(found) or min(found) < 0:
        raise ConfigError(f"--seeds {text}: give different whole numbers of 0 or more, as 0,1,2")
    return found


def multipliers(text: str | None) -> tuple[float, ...]:
    """Multiples of the base latency, `1.5,2,3`, ascending.

    Raises:
        ConfigError: one that is no number.
    """
    return () if text is None else tuple(sorted(set(_numbers("--slo-multipliers", text, float))))


def chaos(
    crash_every_s: float | None,
    crash_at: str | None,
    lose_gpu: Sequence[str],
    blind: Sequence[str],
    model_factor: float,
) -> Chaos:
    """What goes wrong.

    Raises:
        ConfigError: a text that does not say it, or a value out of its range.
    """
    lost = []
    for text in lose_gpu:
        at, _, gpu = text.partition(":")
        if not gpu:
            raise ConfigError(f"--lose-gpu {text}: write T:GPU, as 300:gpu-1")
        lost.append((_number("--lose-gpu", at, float), f"gpu-{gpu}" if gpu.isdigit() else gpu))
    gaps = []
    for text in blind:
        begin, _, end = text.partition(":")
        if not end:
            raise ConfigError(f"--blind {text}: write FROM:TO, as 100:120")
        gaps.append((_number("--blind", begin, float), _number("--blind", end, float)))
    at_s = () if crash_at is None else tuple(_numbers("--crash-at", crash_at, float))
    return Chaos(crash_every_s, at_s, tuple(lost), tuple(gaps), model_factor)


def physics(beside: float) -> Physics:
    """How the hardware behaves.

    Raises:
        ConfigError: a factor below 1.
    """
    if not 1 <= beside < math.inf:
        raise ConfigError(f"--beside is {beside:g}: it must be 1 or more")
    return Physics(beside=beside)


def _numbers(option: str, text: str, kind: Callable[[str], Value]) -> list[Value]:
    return [_number(option, part, kind) for part in text.split(",") if part.strip()]


def _number(option: str, text: str, kind: Callable[[str], Value]) -> Value:
    try:
        value = kind(text.strip())
    except ValueError:
        value = kind("-1")
    if not 0 <= value < math.inf:
        raise ConfigError(f"{option}: {text!r} is no number of 0 or more")
    return value
