"""The device of a row, which its batches share, and the token bucket of an instance; and what compiles both.

Compiled with numba where it is installed (the extra `fast`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scaler.replay.world import HOLDING, World

compiled: Callable[[Any], Any]
try:
    from numba import njit
except ModuleNotFoundError:  # the extra `fast`
    COMPILED = False

    def compiled(function: Any) -> Any:
        """Leave it to the interpreter."""
        return function
else:
    COMPILED = True
    compiled = njit(cache=True, nogil=True)


@compiled
def refill(w: World, i: int) -> None:
    """Bring the token bucket of instance `i` up to now; it holds at most one window's worth."""
    now = w.now[0]
    most = w.quota[i] * w.window[i]
    w.tokens[i] = min(w.tokens[i] + w.quota[i] * (now - w.tokens_at[i]), most)
    w.tokens_at[i] = now


@compiled
def share(w: World, r: int) -> None:
    """Let the batches on the device of row `r` progress up to now, each at an equal share."""
    now, count = w.now[0], w.on_device_count[r]
    if count > 0:
        passed = now - w.row_seen_at[r]
        w.row_busy[r] += passed
        for k in range(count):
            w.work_left[w.on_device[r, k]] -= passed / count
    w.row_seen_at[r] = now


@compiled
def _foresee(w: World, r: int) -> None:
    """When each batch on the device of row `r` will be done, if none comes or goes."""
    now, count = w.now[0], w.on_device_count[r]
    for k in range(count):
        i = w.on_device[r, k]
        w.event_at[i] = now + max(w.work_left[i], 0.0) * count


@compiled
def enter_device(w: World, i: int) -> None:
    """Put the batch of instance `i` on the device of its row."""
    r = w.row[i]
    share(w, r)
    if w.on_device_count[r] == 0:
        w.busy_rows[w.row_gpu[r]] += 1
    w.on_device[r, w.on_device_count[r]] = i
    w.on_device_count[r] += 1
    _foresee(w, r)


@compiled
def leave_device(w: World, i: int) -> None:
    """Take the batch of instance `i` off the device of its row; the others go on faster."""
    r = w.row[i]
    share(w, r)
    last = w.on_device_count[r] - 1
    for k in range(last + 1):
        if w.on_device[r, k] == i:
            w.on_device[r, k] = w.on_device[r, last]
            break
    w.on_device_count[r] = last
    if last == 0:
        w.busy_rows[w.row_gpu[r]] -= 1
    _foresee(w, r)


@compiled
def hold(w: World, i: int) -> None:
    """When instance `i`, whose device work is done, may let its result go; again after a change of quota."""
    now = w.now[0]
    repaid = now
    if w.tokens[i] < 0:
        repaid = w.tokens_at[i] - w.tokens[i] / w.quota[i]
    w.event_at[i] = max(now, repaid, w.pace_until[i])


@compiled
def set_quota(w: World, i: int, quota: float) -> None:
    """Change the quota of instance `i`, a share: what it owes is repaid at the new rate from now on."""
    refill(w, i)
    w.quota[i] = quota
    w.tokens[i] = min(w.tokens[i], quota * w.window[i])
    if w.stage[i] == HOLDING:
        hold(w, i)
