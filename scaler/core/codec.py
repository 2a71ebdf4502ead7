"""Observations and decisions as JSON texts: what a live adapter logs, and what it may be fed again.

    observation_from_json(observation_to_json(seen)) == seen

Numbers keep every bit. A text that is not what it should be is a typed error.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from rapp.errors import ConfigError, RappError
from scaler.core.decision import Decision
from scaler.core.observation import Observation

VERSION = 1

Kind = TypeVar("Kind")

_OBSERVATION, _DECISION = TypeAdapter(Observation), TypeAdapter(Decision)


class CodecError(RappError):
    """A text that is no observation or decision of this version."""


def observation_to_json(observation: Observation) -> str:
    """An observation as a JSON object on one line."""
    return _text(_OBSERVATION, observation)


def observation_from_json(text: str) -> Observation:
    """The observation of a text.

    Raises:
        CodecError: it is none, or of another version.
    """
    return _value(_OBSERVATION, "observation", text)


def decision_to_json(decision: Decision) -> str:
    """A decision as a JSON object on one line."""
    return _text(_DECISION, decision)


def decision_from_json(text: str) -> Decision:
    """The decision of a text.

    Raises:
        CodecError: it is none, or of another version.
    """
    return _value(_DECISION, "decision", text)


def _text(adapter: TypeAdapter[Kind], value: Kind) -> str:
    content: dict[str, Any] = {"version": VERSION, **adapter.dump_python(value, mode="json")}
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def _value(adapter: TypeAdapter[Kind], name: str, text: str) -> Kind:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CodecError(f"{name}: no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CodecError(f"{name}: a JSON object is needed")
    version = content.pop("version", None)
    if version != VERSION:
        raise CodecError(f"{name}: version {version}, this program reads {VERSION}")
    try:
        return adapter.validate_json(json.dumps(content), strict=True)
    except ConfigError as error:
        # Raised by the types themselves, such as ResourceConfig.
        raise CodecError(f"{name}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CodecError(f"{name}: {where}: {first['msg']}") from error
