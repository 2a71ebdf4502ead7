"""The device of a row, which its batches share, and the token bucket of an instance.

After a change here touch `events.py`: what numba has kept of the loop, this inlined, it takes for up to
date by the time of that file alone.
"""

from __future__ import annotations

from scaler.replay.compiling import within
from scaler.replay.world import HOLDING, World


@within
def refill(w: World, i: int) -> None:
    """Bring the token bucket of instance `i` up to now; it holds at most one window's worth.

    One that is still starting has a full bucket from when it will be ready.
    """
    one, now = w.instance_table[i], w.clock_table[0].now
    if now > one.tokens_at:
        one.tokens = min(one.tokens + one.quota * (now - one.tokens_at), one.quota * one.window)
        one.tokens_at = now


@within
def share(w: World, r: int) -> None:
    """Let the batches on the device of row `r` progress up to now, each at an equal share."""
    row, now = w.row_table[r], w.clock_table[0].now
    if row.on_device_count > 0:
        passed = now - row.row_seen_at
        row.row_busy += passed
        for k in range(row.on_device_count):
            w.instance_table[w.on_device[r, k]].work_left -= passed / row.on_device_count
    row.row_seen_at = now


@within
def _foresee(w: World, r: int) -> None:
    """When each batch on the device of row `r` will be done, if none comes or goes."""
    count, now = w.row_table[r].on_device_count, w.clock_table[0].now
    for k in range(count):
        one = w.instance_table[w.on_device[r, k]]
        one.event_at = now + max(one.work_left, 0.0) * count


@within
def slowed(w: World, i: int) -> float:
    """Factor on the times of a batch that instance `i` begins now: the largest of its busy neighbours'."""
    one = w.instance_table[i]
    g = w.row_table[one.row].row_gpu
    others = w.busy_rows[g] - (1 if w.row_table[one.row].on_device_count > 0 else 0)
    factor, r = 1.0, one.row
    if others == 0:
        return factor
    # The rows of a GPU lie side by side.
    while r > 0 and w.row_table[r - 1].row_gpu == g:
        r -= 1
    while others > 0 and r < len(w.row_table) and w.row_table[r].row_gpu == g:
        if r != one.row and w.row_table[r].on_device_count > 0:
            others -= 1
            for k in range(w.row_table[r].on_device_count):
                other = w.instance_table[w.on_device[r, k]]
                factor = max(factor, w.beside[one.function, other.function])
        r += 1
    return factor


@within
def enter_device(w: World, i: int) -> None:
    """Put the batch of instance `i` on the device of its row."""
    r = w.instance_table[i].row
    row = w.row_table[r]
    share(w, r)
    if row.on_device_count == 0:
        w.busy_rows[row.row_gpu] += 1
    w.on_device[r, row.on_device_count] = i
    row.on_device_count += 1
    _foresee(w, r)


@within
def leave_device(w: World, i: int) -> None:
    """Take the batch of instance `i` off the device of its row; the others go on faster."""
    r = w.instance_table[i].row
    row = w.row_table[r]
    share(w, r)
    last = row.on_device_count - 1
    for k in range(last + 1):
        if w.on_device[r, k] == i:
            w.on_device[r, k] = w.on_device[r, last]
            break
    row.on_device_count = last
    if last == 0:
        w.busy_rows[row.row_gpu] -= 1
    _foresee(w, r)


@within
def hold(w: World, i: int) -> None:
    """When instance `i`, whose device work is done, may let its result go; again after a change of quota."""
    one, now = w.instance_table[i], w.clock_table[0].now
    repaid = now
    if one.tokens < 0:
        repaid = one.tokens_at - one.tokens / one.quota
    one.event_at = max(now, repaid, one.pace_until)


@within
def set_quota(w: World, i: int, quota: float) -> None:
    """Change the quota of instance `i`, a share: what it owes is repaid at the new rate from now on."""
    refill(w, i)
    one, now = w.instance_table[i], w.clock_table[0].now
    one.quota = quota
    one.tokens = quota * one.window if now < one.tokens_at else min(one.tokens, quota * one.window)
    if one.stage == HOLDING:
        hold(w, i)
