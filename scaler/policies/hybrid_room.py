"""Room for the instances of `hybrid`: rows of their own, and how much of the GPUs each function may have."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from scaler.gpu import Gpu, Need
from scaler.packing import TOLERANCE, Pool

SM_STEPS_PCT = ((100.0, 5.0), (200.0, 10.0), (400.0, 20.0), (math.inf, 50.0))
"""What a function may have is rounded down to steps, finer ones up to each bound, so that plans are found
again."""


@dataclass(frozen=True, slots=True)
class Room:
    """SMs that a function may have.

    Args:
        most_pct: all together, % of a GPU. scarcity: price of those without quota (`Wanted`).
    """

    most_pct: float
    scarcity: float


def allowed_sm_pct(
    pool: Pool,
    own_pct: Mapping[str, float],
    short: Collection[str],
    needs_pct: Mapping[str, float | None],
    moving: Collection[str] = (),
) -> dict[str, float]:
    """SMs that each function may have, by name: % of a GPU, 400 for four of them.

    Whoever wants may have more than his part of them all, as long as those who are short of room could still
    get theirs. If they could not, those who have most beyond their part come back to it, no more of them than
    it takes. Parts are fair by need: `level` for all, or the need if that is less, where the needs together
    exceed what there is (max-min fairness).

    Args:
        own_pct: what each function has now. short: functions whose demand is not served for want of room.
        needs_pct: the fewest that serve what each expects; one that is not known wants as much as it can get.
        moving: functions whose instances are being exchanged; they keep what they have until that is done.
    """
    if not own_pct:
        return {}
    total = 100.0 * len(pool.gpus)
    needs = {name: needs_pct.get(name) or math.inf for name in own_pct}
    level = _level(total, needs.values())
    fair = {name: min(need, level) for name, need in needs.items()}
    owed = {name: max(fair[name] - own_pct[name], 0.0) if name in short else 0.0 for name in own_pct}
    # What drains is free soon: it is not taken back a second time.
    spare = total - sum(own_pct.values()) - sum(owed.values())
    most = {
        name: max(_step(max(fair[name], own + owed[name] + max(spare, 0.0))), own)
        for name, own in own_pct.items()
    }
    for over, name in sorted(((own_pct[name] - fair[name], name) for name in own_pct), reverse=True):
        if spare >= -TOLERANCE or over <= TOLERANCE:
            break
        if name not in moving:
            most[name], spare = _step(fair[name]), spare + over
    return most


def _level(total: float, needs: Collection[float]) -> float:
    """What each gets at most so that all together get the total, or all they need."""
    left = total
    for number, need in enumerate(sorted(needs)):
        level = left / (len(needs) - number)
        if need > level:
            return level
        left -= need
    return math.inf


def place(pool: Pool, takes: Need) -> tuple[str, int] | None:
    """A row of its own, on the GPU with the fewest SMs to spare; None: there is none."""
    fitting = ((gpu.free_sm_pct, gpu.id) for gpu in pool.gpus.values() if _fits(gpu, takes) > 0)
    _, best = min(fitting, default=(0.0, None))
    return None if best is None else (best, pool.gpus[best].free_row())


def room(pool: Pool, takes: Need, most: int) -> int:
    """How many instances fit, each in a row of its own; no more than `most` are counted."""
    found = 0
    for gpu in pool.gpus.values():
        if found >= most:
            break
        found += _fits(gpu, takes)
    return min(found, most)


def _fits(gpu: Gpu, takes: Need) -> int:
    """How many instances fit on a GPU."""
    taken = gpu.taken()
    fits = (100.0 - taken.sm_pct + TOLERANCE) / takes.sm_pct
    if fits < 1:
        return 0
    if takes.memory_mib > 0:
        fits = min(fits, (gpu.memory_mib - taken.memory_mib + TOLERANCE) / takes.memory_mib)
    if takes.host_cores > 0:
        fits = min(fits, (gpu.host_cores - taken.host_cores + TOLERANCE) / takes.host_cores)
    return max(int(fits), 0)


def _step(sm_pct: float) -> float:
    step = next(step for most, step in SM_STEPS_PCT if sm_pct <= most)
    return step * math.floor(sm_pct / step + 1e-9)
