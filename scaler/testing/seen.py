"""What tests of backends ask of observations, and how they order changes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from rapp.types import ResourceConfig
from scaler.backends.base import Backend
from scaler.core.decision import Action, Decision
from scaler.core.observation import InstanceView, Observation, Phase

_NUMBERS = count()


def new_name() -> str:
    """A name that no instance had in this run."""
    return f"contract-{next(_NUMBERS)}"


def order(backend: Backend, *actions: Action) -> None:
    """Have changes made, none of which may be refused."""
    assert backend.apply(Decision(actions)) == []


def found(seen: Observation, id_: str) -> InstanceView | None:
    """The instance of this id, which is reported once at most."""
    listed = [one for one in seen.instances if one.id == id_]
    assert len(listed) <= 1, f"{id_} is reported {len(listed)} times"
    return listed[0] if listed else None


def alive(seen: Observation) -> list[InstanceView]:
    """The instances that are not lost."""
    return [one for one in seen.instances if one.phase != Phase.LOST]


def is_in(seen: Observation, id_: str, phase: Phase) -> bool:
    """Whether an instance is there, in this phase."""
    one = found(seen, id_)
    return one is not None and one.phase == phase


def has_config(seen: Observation, id_: str, config: ResourceConfig) -> bool:
    """Whether an instance is there, with this configuration."""
    one = found(seen, id_)
    return one is not None and one.config == config


def never_starts(id_: str) -> Callable[[Observation], None]:
    """A check that an instance is not seen to start."""

    def each(seen: Observation) -> None:
        assert not is_in(seen, id_, Phase.STARTING), f"{id_} was restarted"

    return each
