"""The event loop: request by request, batch by batch. Compiled with numba where it is installed.

A function has one queue, as the gateway has. An idle instance takes from its head: a full batch at once, a
part of one when its first request has waited for the batching delay. A batch needs the device of its row,
which the batches on it share equally, and its pace, the time it takes with the device to itself; then
its result is held until the debt of the instance's token bucket is repaid (`rapp.inference.law`):

    release = max(begin + pace, end of device work, time at which the tokens are 0 again)
"""

from __future__ import annotations

import numpy as np

from scaler.replay.device import compiled, enter_device, hold, leave_device, refill
from scaler.replay.world import (
    ABSENT,
    HOLDING,
    IDLE,
    LOST,
    REFUSED,
    RUNNING,
    SERVED,
    STARTING,
    World,
)

MOST_TRIES = 3
"""A request whose instance died is begun again at most so often."""


@compiled
def run_until(w: World, end: float) -> None:
    """Process all events up to and including `end`, s; the clock is `end` afterwards."""
    while True:
        at, kind, index = max(end, w.now[0]), 0, 0
        if w.cursor[0] < len(w.arrival) and w.arrival[w.cursor[0]] <= at:
            at, kind = w.arrival[w.cursor[0]], 1
        for i in range(w.cursor[2]):
            # A result is there before the request that comes at the same moment.
            if w.event_at[i] < at or (w.event_at[i] == at and kind < 2):
                at, kind, index = w.event_at[i], 2, i
        for f in range(len(w.timer)):
            if w.timer[f] < at:
                at, kind, index = w.timer[f], 3, f
        w.now[0] = at
        if kind == 0:
            break
        if kind == 1:
            _arrive(w)
        elif kind == 2:
            _instance_event(w, index)
        else:
            w.timer[index] = np.inf
            dispatch(w, index)


@compiled
def _arrive(w: World) -> None:
    request = w.cursor[0]
    w.cursor[0] += 1
    f = w.function_of[request]
    w.arrived[f] += 1
    if w.queue_length[f] >= w.queue_limit[f]:
        w.refused[f] += 1
        w.outcome[request] = REFUSED
        return
    ring = w.queue.shape[1]
    w.queue[f, (w.queue_head[f] + w.queue_length[f]) % ring] = request
    w.queue_length[f] += 1
    dispatch(w, f)


@compiled
def dispatch(w: World, f: int) -> None:
    """Give what waits for function `f` to its idle instances."""
    now = w.now[0]
    w.timer[f] = np.inf
    while w.queue_length[f] > 0:
        best, soonest = -1, np.inf
        for m in range(w.member_count[f]):
            i = w.members[f, m]
            if w.stage[i] == IDLE and w.draining[i] == 0:
                n = min(w.batch[i], w.queue_length[f])
                refill(w, i)
                # Where it is released first; a larger batch is as good as several small ones.
                takes = max(w.pace[i, n], (w.device[i, n] - w.tokens[i]) / w.quota[i]) / n
                if takes < soonest:
                    best, soonest = i, takes
        if best < 0:
            return
        due = w.arrival[w.queue[f, w.queue_head[f]]] + w.most_delay[f]
        if w.queue_length[f] < w.batch[best] and due > now:
            w.timer[f] = due
            return
        _begin(w, f, best)


@compiled
def _begin(w: World, f: int, i: int) -> None:
    now = w.now[0]
    n = min(w.batch[i], w.queue_length[f])
    ring = w.queue.shape[1]
    for k in range(n):
        request = w.queue[f, (w.queue_head[f] + k) % ring]
        w.carried[i, k] = request
        w.tries[request] += 1
    w.queue_head[f] = (w.queue_head[f] + n) % ring
    w.queue_length[f] -= n
    w.carried_count[i] = n
    w.begun_at[i] = now
    factor = w.noise[w.cursor[1] % len(w.noise)]
    w.cursor[1] += 1
    r = w.row[i]
    g = w.row_gpu[r]
    others = w.busy_rows[g] - (1 if w.on_device_count[r] > 0 else 0)
    slowed = w.beside[0] if others > 0 else 1.0
    w.work[i] = w.device[i, n] * factor * slowed
    w.pace_until[i] = now + w.pace[i, n] * factor * slowed
    w.work_left[i] = w.work[i]
    w.host_used[i] += w.host[i, n]
    w.stage[i] = RUNNING
    enter_device(w, i)


@compiled
def _instance_event(w: World, i: int) -> None:
    if w.stage[i] == RUNNING:
        leave_device(w, i)
        # The cap comes after the charge: a run longer than the window earned while it ran.
        now, quota = w.now[0], w.quota[i]
        w.tokens[i] += quota * (now - w.tokens_at[i]) - w.work[i]
        w.tokens[i] = min(w.tokens[i], quota * w.window[i])
        w.tokens_at[i] = now
        w.device_used[i] += w.work[i]
        w.batches[i] += 1
        w.requests[i] += w.carried_count[i]
        w.executing[i] += max(now, w.pace_until[i]) - w.begun_at[i]
        w.stage[i] = HOLDING
        hold(w, i)
        if w.event_at[i] > now:
            return
    if w.stage[i] == HOLDING:
        _release(w, i)
    w.event_at[i] = np.inf
    w.stage[i] = IDLE
    if w.draining[i] == 1:
        stop(w, i)
    else:
        dispatch(w, w.function[i])


@compiled
def _release(w: World, i: int) -> None:
    now, f, n = w.now[0], w.function[i], w.carried_count[i]
    for k in range(n):
        request = w.carried[i, k]
        w.latency[request] = now - w.arrival[request]
        w.outcome[request] = SERVED
        w.recent[f, w.served[f] % w.recent.shape[1]] = w.latency[request]
        w.served[f] += 1
        if w.latency[request] > w.objective[f]:
            w.late[f] += 1
    w.carried_count[i] = 0


@compiled
def stop(w: World, i: int) -> None:
    """Take instance `i` away; what it carried goes back to the head of the queue, or is lost after
    `MOST_TRIES`."""
    f = w.function[i]
    if w.stage[i] == RUNNING:
        leave_device(w, i)
    ring = w.queue.shape[1]
    for k in range(w.carried_count[i] - 1, -1, -1):
        request = w.carried[i, k]
        if w.tries[request] >= MOST_TRIES:
            w.outcome[request] = LOST
            w.lost[f] += 1
            continue
        w.queue_head[f] = (w.queue_head[f] - 1) % ring
        w.queue[f, w.queue_head[f]] = request
        w.queue_length[f] += 1
    w.carried_count[i] = 0
    w.stage[i] = ABSENT
    w.event_at[i] = np.inf
    w.stopped_at[i] = w.now[0]
    last = w.member_count[f] - 1
    for m in range(last + 1):
        if w.members[f, m] == i:
            w.members[f, m] = w.members[f, last]
            break
    w.member_count[f] = last
    dispatch(w, f)


@compiled
def start(w: World, i: int, ready_at: float) -> None:
    """Start instance `i`, whose function, row and configuration are set; it serves from `ready_at`."""
    f = w.function[i]
    w.members[f, w.member_count[f]] = i
    w.member_count[f] += 1
    w.stage[i] = STARTING
    w.draining[i] = 0
    w.carried_count[i] = 0
    w.event_at[i] = ready_at
    w.stopped_at[i] = np.nan
    w.batches[i] = 0
    w.requests[i] = 0
    w.executing[i] = 0.0
    w.device_used[i] = 0.0
    w.host_used[i] = 0.0
    w.cursor[2] = max(w.cursor[2], i + 1)
    # A fresh bucket is full: the instance has used nothing.
    w.tokens[i] = w.quota[i] * w.window[i]
    w.tokens_at[i] = ready_at


@compiled
def drain(w: World, i: int) -> None:
    """Give instance `i` nothing more; it stops when its batch is done."""
    w.draining[i] = 1
    if w.stage[i] == IDLE or w.stage[i] == STARTING:
        stop(w, i)
