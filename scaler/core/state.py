"""The core's state: what it knows from tick to tick, as JSON between ticks and as objects within one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rapp.errors import RappError
from rapp.types import ResourceConfig
from scaler.core.correction import Correction

VERSION = 3


class StateError(RappError):
    """A saved state that this version cannot read."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """An instance that was ordered and is not seen yet. at_s: when."""

    function: str
    gpu: str
    row: int
    config: ResourceConfig
    at_s: float

    def resized(self, quota_pct: float, batch: int) -> Ordered:
        """The same with another quota and batch."""
        return replace(self, config=ResourceConfig(self.config.sm_pct, quota_pct, batch))


@dataclass(slots=True)
class FunctionState:
    """What is known of one function.

    Args:
        forecast: state of the forecaster. correction: of its times.
        busy_s: when it last had a request, or could not be observed.
        lost: instances lost that no policy was told of yet.
        disturbed: an instance of it was starting in the tick that ended last, or, under a launch gate, was
            changed: then what was observed is of two states.
    """

    forecast: Mapping[str, Any]
    correction: Correction
    busy_s: float
    lost: int = 0
    disturbed: bool = True


@dataclass(slots=True)
class CoreState:
    """What is known between two ticks.

    Args:
        now_s: time of the last tick; None: there was none.
        functions: by name.
        ordered: instances ordered but not seen yet, by id.
        draining: when an instance was told to drain, by id.
        alive: function of each instance that was there and not draining, by id: if it is gone it was lost.
        lost: ids of lost instances that are still reported.
        forecaster, policy: names of those whose state this is. memory: of the policy; None: none yet.
    """

    now_s: float | None = None
    functions: dict[str, FunctionState] = field(default_factory=dict)
    ordered: dict[str, Ordered] = field(default_factory=dict)
    draining: dict[str, float] = field(default_factory=dict)
    alive: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    forecaster: str = ""
    policy: str = ""
    memory: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "version": VERSION,
            "now_s": self.now_s,
            "functions": {
                name: {
                    "forecast": dict(one.forecast),
                    "correction": one.correction.to_state(),
                    "busy_s": one.busy_s,
                    "lost": one.lost,
                    "disturbed": one.disturbed,
                }
                for name, one in self.functions.items()
            },
            "ordered": {
                id_: [
                    one.function, one.gpu, one.row,
                    one.config.sm_pct, one.config.quota_pct, one.config.batch, one.at_s,
                ]
                for id_, one in self.ordered.items()
            },
            "draining": dict(self.draining),
            "alive": dict(self.alive),
            "lost": list(self.lost),
            "forecaster": self.forecaster,
            "policy": self.policy,
            "memory": None if self.memory is None else dict(self.memory),
        }  # fmt: skip

    @staticmethod
    def of_json(saved: Mapping[str, Any] | None) -> CoreState:
        """What `to_json` gave, which is left as it is; None or {}: a restart.

        Raises:
            StateError: it is of another version, or damaged.
        """
        if not saved:
            return CoreState()
        if saved.get("version") != VERSION:
            raise StateError(
                f"state of the scaler: version {saved.get('version')}, this program reads {VERSION}:"
                " start without it"
            )
        try:
            return CoreState(
                now_s=saved["now_s"],
                functions={
                    name: FunctionState(
                        one["forecast"], Correction.of_state(one["correction"]),
                        one["busy_s"], one["lost"], one["disturbed"],
                    )
                    for name, one in saved["functions"].items()
                },
                ordered={
                    id_: Ordered(function, gpu, row, ResourceConfig(sm_pct, quota_pct, batch), at_s)
                    for id_, (function, gpu, row, sm_pct, quota_pct, batch, at_s) in saved["ordered"].items()
                },
                draining=dict(saved["draining"]),
                alive=dict(saved["alive"]),
                lost=list(saved["lost"]),
                forecaster=saved["forecaster"],
                policy=saved["policy"],
                memory=saved["memory"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(
                f"state of the scaler is damaged ({type(error).__name__}: {error}): start without it"
            ) from error
