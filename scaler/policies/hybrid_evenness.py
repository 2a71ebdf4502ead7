"""Whether a function's requests come evenly, as cameras send frames, by how they are counted tick by tick.

The index of dispersion of counts, variance over mean, is 1 for a Poisson process and 0 for arrivals at even
distances (Cox and Lewis 1966, section 4.5). Ticks' counts m, n one after another with the same expectation
have (m - n)^2 / (m + n) as an estimate of it that needs no level; it is averaged over ticks. A change of the
load is none of the process: what exceeds `CHANGE` is left out.

Counts do not tell how requests come within a tick: thirty cameras on one clock send thirty frames at once.
So late answers that nothing unforeseen explains are believed more than counts, for `DOUBT_S`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MEMORY_S = 30.0
"""Time over which the dispersion is averaged, s. It starts at 1, so even arrivals are known after 42 s. In
simulated Poisson counts of 0.5 to 300 a tick it was never below 0.31 in 10 million ticks."""

CHANGE = 4.0
"""Estimates from which a pair of ticks is one of different rates: two standard deviations of the difference
of Poisson counts. The dispersion of these has a mean of 0.77 then."""

EVEN_BELOW, UNEVEN_ABOVE = 0.25, 0.5
"""Dispersions from which arrivals count as even, and no more."""

DOUBT_S = 600.0
"""Time for which arrivals do not count as even after answers that were late while they did, s: if those are
late for five seconds until it shows, that is less than 1 % of them."""

ROUGH_S = 15.0
"""The same after a backlog or a late answer, whatever it is of, s: until plans are seen to suffice again. If
late answers did not count, 0.1 to 0.4 % more would be late of cameras out of step (HAS-GPU's standard rates
times 5)."""


def start() -> dict[str, Any]:
    """Nothing seen.

    The memory holds: `rate_rps` of the last tick; `dispersion`; whether arrivals count as `even`;
    `doubted_until_s`, before which they do not.
    """
    return {"rate_rps": None, "dispersion": 1.0, "even": False, "doubted_until_s": None}


def updated(
    memory: Mapping[str, Any],
    rate_rps: float | None,
    dt_s: float,
    now_s: float,
    *,
    late: bool = False,
    rough: bool = False,
) -> dict[str, Any]:
    """The memory with what was counted in a tick.

    Args:
        rate_rps: arrivals a second in it; None: not counted. dt_s: its length, s; 0: there was none before.
        late: answers are late, or will be, and nothing unforeseen explains it.
        rough: they are, whatever explains it.
    """
    dispersion, before_rps, until_s = memory["dispersion"], memory["rate_rps"], memory["doubted_until_s"]
    if rate_rps is not None and before_rps is not None and dt_s > 0 and rate_rps + before_rps > 0:
        seen = dt_s * (rate_rps - before_rps) ** 2 / (rate_rps + before_rps)
        if seen < CHANGE:
            dispersion += (1.0 - math.exp(-dt_s / MEMORY_S)) * (seen - dispersion)
    doubt_s = DOUBT_S if late and memory["even"] else ROUGH_S if rough else 0.0
    if until_s is None or now_s + doubt_s > until_s:
        until_s = now_s + doubt_s if doubt_s else None
    even = until_s is None and dispersion < (UNEVEN_ABOVE if memory["even"] else EVEN_BELOW)
    return {"rate_rps": rate_rps, "dispersion": dispersion, "even": even, "doubted_until_s": until_s}
