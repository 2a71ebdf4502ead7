"""`Demand`: what `hybrid` plans for, from forecasts and from how often they were too low.

    upper      upper quantile of the forecast, but not above that of a Poisson process at its mean: what a
               rate varies beyond that are bursts, for which there are surprises
    surprise   a tick with more arrivals than a Poisson process at `upper` would bring
    floor      the largest rate of the surprises, but for those whose requests are a share `FORGIVEN` of what
               may be late
    quick      max(upper, floor): what quotas are set for. A quota follows within a tick, too late for a
               surprise; so what comes by surprise often enough to matter is kept ready for
    ahead      the same at the horizon of a cold start: what instances are there for
    most       what they should be able to serve at full quota, so that not every step waits for a cold start.
               After a time T the next t seconds bring a new peak with the probability t / (T + t), if all
               orders are alike (the law of records); with so much weight it may be `RECORD` above

All of them are multiplied by a margin, 1 at first: more while answers are late although nothing unforeseen
happened, as where execution times are not as predicted; less while they are early all the time.

So a burst once in an hour is not provisioned for, steps up and down twice a minute are, and a load without
surprises costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scaler.forecast.base import Forecast
from scaler.policies import hybrid_evenness
from scaler.policies.base import Case

FORGIVEN = 0.3
"""Share of the requests that may be late (1 - quantile) that ticks above the peak may have; the rest is for
queueing."""

PERIOD_S = 300.0
"""Rates of one to two such periods are remembered, s: some times the distance of steps that are worth being
ready for."""

FALL_S = 5.0
"""Time between two looks for whether the largest rates have become rare enough to be forgiven, s."""

BEYOND = 3.0
"""Standard deviations of a Poisson count above the forecast from which a tick is a surprise."""

POISSON = 1.645
"""Standard deviations of a second's Poisson count up to which an upper quantile is believed: its 95 %."""

FIRST_S = 10.0
"""Time after a function's first request in which nothing counts as a surprise, s: that there are requests at
all is new, and says nothing of how they vary."""

HOLD_S = 2.0
"""Time over which the largest upper quantile counts, s: a quota goes up at once, and down after it."""

NEXT_S = 60.0
"""Time ahead for which the chance of a new peak counts, s: that for which an instance is needed at least."""

RECORD = 1.0
"""By how much a new peak is expected to exceed the old one, as a part of it. On HAS-GPU's workloads 0 and
0.5 have more late answers at about the same cost, 2 costs more."""

MARGINS = (0.8, 1.5)
"""Bounds of the margin: by some 20 % the capacity of instances errs on the safe side, and even arrivals need
less than Poisson ones; 1.5 is for a model that is wrong by as much."""

LATE, EARLY, IN_TIME = 1.005, 0.999, 0.9998
"""Factor of the margin for a tick with the latency's quantile above the objective; below `EARLY_BELOW` of it;
and in between, for a margin above 1. A late answer is seen for some ticks, so the first is to be small; a few
minutes undo what a minute did. Where a batch alone takes nearly the objective answers are never early, and a
margin that once was needed would stay: it is given back within hours."""

EARLY_BELOW = 0.92
"""Part of the objective below which the quantile of the latency is early."""

CALM_S = 15.0
"""Time after the last backlog or surprise from which a late answer speaks for the margin, s: until then it
may be of those."""

EMPTY_S = 1.0
"""Time in which a queue is to be emptied, s: one tick, for what waits that long is late already."""

BIN = 1.05
"""Ratio of the rates of two bins of a histogram."""

LOG_BIN = math.log(BIN)

Histogram = Mapping[str, float]
"""Requests in ticks of a rate, by the bin of the rate: the bin n holds rates from BIN^n on."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Rates to plan for, requests a second.

    Args:
        quick: for quotas now. backlog: what is needed beside it to empty the queue.
        ahead: for instances a cold start ahead. most: that they should be able to serve at full quota.
    """

    quick: float
    backlog: float
    ahead: float
    most: float

    def over(self, factor: float) -> Demand:
        """All rates, divided."""
        return Demand(self.quick / factor, self.backlog / factor, self.ahead / factor, self.most / factor)


def start() -> dict[str, Any]:
    """Nothing seen.

    The memory holds: `periods`, the last two, [begin, requests, histogram of all ticks, that of surprises];
    `peak` and `floor` of them; `held`, [time, upper], those of the last `HOLD_S` that none after them
    exceeds; `margin`; `rough_s`, when there was a backlog or a surprise; `evenness`, of
    `scaler.policies.hybrid_evenness`.
    """
    return {
        "at_s": None, "periods": [], "peak": 0.0, "floor": 0.0, "held": [], "margin": 1.0, "rough_s": None,
        "evenness": hybrid_evenness.start(),
    }  # fmt: skip


def updated(memory: Mapping[str, Any], case: Case, now_s: float) -> dict[str, Any]:
    """The memory with what was seen in the last tick."""
    found = {**memory, "at_s": now_s, **_rates(memory, case, now_s)}
    if memory["at_s"] is None or case.lost > 0:
        found["rough_s"] = now_s
    backlog, latency = backlog_of(case) > 0, (case.latency_ms or 0.0) / case.slo_ms
    calm, late = now_s - found["rough_s"] >= CALM_S, backlog or latency > 1
    dt_s = 0.0 if memory["at_s"] is None else now_s - memory["at_s"]
    found["evenness"] = hybrid_evenness.updated(
        memory["evenness"], case.rate_rps, dt_s, now_s, late=late and calm, rough=late
    )
    if backlog:
        found["rough_s"] = now_s
    elif calm and case.latency_ms is not None:
        found["margin"] = _margin(memory["margin"], latency)
    upper = _believed(case.soon)
    held = [[at, rps] for at, rps in memory["held"] if now_s - at < HOLD_S and rps > upper]
    return found | {"held": [*held, [now_s, upper]]}


def _rates(memory: Mapping[str, Any], case: Case, now_s: float) -> dict[str, Any]:
    """What changes of the memory by a tick's rate: `periods`, `peak`, `floor`; `rough_s` by a surprise."""
    before_s, rate_rps = memory["at_s"], case.rate_rps
    if before_s is None or now_s <= before_s or not rate_rps:
        if memory["periods"] and now_s - memory["periods"][-1][0] > 2 * PERIOD_S:
            return {"periods": [], "peak": 0.0, "floor": 0.0}
        return {}
    dt_s = now_s - before_s
    expected = float(memory["held"][0][1])
    beyond = expected + BEYOND * math.sqrt(max(expected, 1.0 / dt_s) / dt_s)
    surprise = rate_rps > beyond and _known_s(memory, now_s) >= FIRST_S
    periods = _added(memory["periods"], rate_rps, dt_s, now_s, surprise=surprise)
    found: dict[str, Any] = {"periods": periods}
    if rate_rps > max(beyond, memory["floor"]):
        found["rough_s"] = now_s
    begun = not memory["periods"] or periods[-1][0] != memory["periods"][-1][0]
    # They rise at once, and fall as more requests come, which may wait.
    if surprise or begun or rate_rps >= memory["peak"] or now_s // FALL_S != before_s // FALL_S:
        forgiven = FORGIVEN * (1.0 - case.spec.slo_quantile) * sum(period[REQUESTS] for period in periods)
        found["peak"], found["floor"] = (_peak_rps(periods, of, forgiven) for of in (ALL, SURPRISES))
    return found


def demand(memory: Mapping[str, Any], case: Case) -> Demand:
    """What to plan for; `memory` is of `updated`."""
    margin = memory["margin"]
    quick = max(memory["held"][0][1], memory["floor"])
    ahead = max(_believed(case.forecast), quick)
    known_s = _known_s(memory, memory["at_s"])
    most = max(ahead, memory["peak"]) * (1.0 + RECORD * NEXT_S / (known_s + NEXT_S))
    return Demand(margin * quick, backlog_of(case), margin * ahead, margin * most)


def backlog_of(case: Case) -> float:
    """Rate that is needed to empty the queue in time, rps; a batch for each instance may wait."""
    return max(case.queue - sum(member.config.batch for member in case.members), 0) / EMPTY_S


def _margin(margin: float, latency: float) -> float:
    """The margin a tick later; `latency` in objectives."""
    factor = LATE if latency > 1 else EARLY if latency < EARLY_BELOW else IN_TIME if margin > 1 else 1.0
    return min(max(margin * factor, MARGINS[0]), MARGINS[1])


def _known_s(memory: Mapping[str, Any], now_s: float) -> float:
    """Since when rates are known, s."""
    return float(now_s - memory["periods"][0][0]) if memory["periods"] else 0.0


REQUESTS, ALL, SURPRISES = 1, 2, 3


def _added(
    periods: list[Any], rate_rps: float, dt_s: float, now_s: float, *, surprise: bool
) -> list[list[Any]]:
    """The periods with one more tick."""
    if not periods or now_s - periods[-1][0] > PERIOD_S:
        periods = [*periods[-1:], [now_s, 0.0, {}, {}]]
    begin_s, total, everything, surprises = periods[-1]
    key = str(math.floor(math.log(rate_rps) / LOG_BIN))
    requests = rate_rps * dt_s
    everything = {**everything, key: everything.get(key, 0.0) + requests}
    if surprise:
        surprises = {**surprises, key: surprises.get(key, 0.0) + requests}
    return [*periods[:-1], [begin_s, total + requests, everything, surprises]]


def _peak_rps(periods: list[list[Any]], which: int, forgiven: float) -> float:
    """The largest rate of ticks whose requests are not among the `forgiven` ones, rps; 0: none.

    What a Poisson process adds to a tick by chance is taken off, one standard deviation of it.
    """
    bins = [(int(key), n) for period in periods for key, n in period[which].items()]
    bins.sort(reverse=True)
    for number, requests in bins:
        forgiven -= requests
        if forgiven < 0:
            rps = float(BIN ** (number + 0.5))
            return max(rps - math.sqrt(rps), 0.0)
    return 0.0


def _believed(forecast: Forecast) -> float:
    """The upper quantile, but for bursts, rps."""
    return min(forecast.upper_rps, forecast.mean_rps + POISSON * math.sqrt(forecast.mean_rps))
