"""The policies by their names on a command line."""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module
from typing import Any, cast

from rapp.errors import ConfigError
from scaler.policies.base import Policy

_CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "hybrid": ("hybrid", "Hybrid", {}),
    "has-gpu": ("has_gpu", "HasGpu", {}),
    "fast-gshare": ("fast_gshare", "FastGshare", {}),
    "fast-gshare-best": ("fast_gshare", "FastGshare", {"config": None}),
    "whole-gpu": ("whole_gpu", "WholeGpu", {}),
    "static": ("static", "Static", {}),
    "oracle": ("oracle", "Oracle", {}),
}
"""By name: module, class and the options that the name stands for."""

NAMES = tuple(_CLASSES)


def policy(name: str, **options: Any) -> Policy:
    """The policy of this name; its module is imported when it is asked for. `options` are those of its class.

    Raises:
        ConfigError: there is none, and the message has the near name; or it has no such option.
    """
    if name not in _CLASSES:
        raise ConfigError(f"no policy {name!r}{_near(name, NAMES)}: there are {', '.join(NAMES)}")
    module, of, fixed = _CLASSES[name]
    class_ = getattr(import_module(f"scaler.policies.{module}"), of)
    known = [option for option in inspect.signature(class_).parameters if option not in fixed]
    for option in options:
        if option not in known:
            there = f"there are {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"policy {name}: no option {option!r}{_near(option, known)}: {there}")
    return cast(Policy, class_(**fixed, **options))


def _near(name: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (near: {close[0]})" if close else ""
