"""`Demand`: what `hybrid` plans for, from forecasts and from how often they were too low.

    surprise   a tick whose arrivals exceed the upper quantile that was forecast for it by more than a Poisson
               process would: a step or a burst that nobody could see in the arrivals before
    floor      the largest rate that came by surprise lately, but for those that are forgiven
    quick      max(soon, floor): what quotas are set for. A quota follows within a tick, too late for a
               surprise; so what comes by surprise often enough to matter is kept ready for
    ahead      max(forecast, quick): what instances are there for; a cold start is too late for more

Forgiven are the largest surprises whose requests together are a share `FORGIVEN` of all, part of what the
objective's quantile allows to be late. A burst once in an hour is not provisioned for, steps up and down
twice a minute are, and a load without surprises costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scaler.policies.base import Case

FORGIVEN = 0.3
"""Part of the requests that may be late (1 - quantile) that surprises may take; the rest is for queueing."""

MEMORY_S = 300.0
"""How long a surprise is remembered, s: a few times the distance of steps that are worth being ready for."""

BEYOND = 3.0
"""Standard deviations of a Poisson count above the forecast from which a tick is a surprise."""

HOLD_S = 5.0
"""Time over which the largest upper quantile counts, s: a quota goes up at once, and down after it."""

EMPTY_S = 1.0
"""Time in which a queue is to be emptied, s: one tick, for what waits that long is late already."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Rates to plan for, requests a second.

    Args:
        quick: for quotas now. ahead: for instances a cold start ahead. backlog: part that empties the queue.
    """

    quick: float
    ahead: float
    backlog: float


def start() -> dict[str, Any]:
    """Nothing seen."""
    return {"at_s": None, "requests": 0.0, "surprises": [], "held": []}


def updated(memory: Mapping[str, Any], case: Case, now_s: float) -> dict[str, Any]:
    """The memory with what was seen in the last tick.

    It holds: `requests`, all of them, forgotten over `MEMORY_S`; `surprises`, [time, rate, requests];
    `held`, [time, upper quantile], those of the last `HOLD_S` that none after them exceeds.
    """
    before_s = memory["at_s"]
    held = [[at, rps] for at, rps in memory["held"] if now_s - at < HOLD_S and rps > case.soon.upper_rps]
    surprises = [one for one in memory["surprises"] if now_s - one[0] < MEMORY_S]
    requests = float(memory["requests"])
    if before_s is not None and now_s > before_s and case.rate_rps is not None:
        dt_s = now_s - before_s
        count = case.rate_rps * dt_s
        requests = requests * math.exp(-dt_s / MEMORY_S) + count
        expected = float(memory["held"][0][1])
        if case.rate_rps > expected + BEYOND * math.sqrt(max(expected, 1.0 / dt_s) / dt_s):
            surprises.append([now_s, case.rate_rps, count])
    return {
        "at_s": now_s,
        "requests": requests,
        "surprises": surprises,
        "held": [*held, [now_s, case.soon.upper_rps]],
    }


def demand(memory: Mapping[str, Any], case: Case, at_once: int) -> Demand:
    """What to plan for.

    Args:
        memory: of `updated`. at_once: requests that the instances have in their batches at a time: so many
            may wait without any backlog.
    """
    backlog = max(case.queue - at_once, 0) / EMPTY_S
    quick = max(memory["held"][0][1], floor_rps(memory, 1.0 - case.spec.slo_quantile))
    return Demand(quick + backlog, max(case.forecast.upper_rps, quick), backlog)


def floor_rps(memory: Mapping[str, Any], may_be_late: float) -> float:
    """The largest rate that came by surprise and is not forgiven, rps; 0: none."""
    left = FORGIVEN * may_be_late * memory["requests"]
    for _, rps, count in sorted(memory["surprises"], key=lambda one: (-one[1], one[0])):
        left -= count
        if left < 0:
            return float(rps)
    return 0.0
