"""The event loop: request by request, batch by batch. Compiled with numba where it is installed.

A function has one queue, as the gateway has. An idle instance takes from its head: a full batch at once, a
part of one when its first request has waited for the batching delay. A batch needs the device of its row,
which the batches on it share equally, and its pace, the time it takes with the device to itself; then
its result is held until the debt of the instance's token bucket is repaid (`rapp.inference.law`):

    release = max(begin + pace, end of device work, time at which the tokens are 0 again)
"""

from __future__ import annotations

import numpy as np

from scaler.replay.compiling import COMPILED as COMPILED
from scaler.replay.compiling import compiled as compiled
from scaler.replay.compiling import within
from scaler.replay.device import enter_device, hold, leave_device, refill, slowed
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


@within
def run_until(w: World, end: float) -> None:
    """Process all events up to and including `end`, s; the clock is `end` afterwards."""
    clock, requests = w.clock_table[0], w.request_table
    while True:
        at, kind, index = max(end, clock.now), 0, 0
        if clock.next_request < len(requests) and requests[clock.next_request].arrival <= at:
            at, kind = requests[clock.next_request].arrival, 1
        for i in range(clock.slots):
            event_at = w.instance_table[i].event_at
            # A result is there before the request that comes at the same moment.
            if event_at < at or (event_at == at and kind < 2):
                at, kind, index = event_at, 2, i
        for f in range(len(w.function_table)):
            if w.function_table[f].timer < at:
                at, kind, index = w.function_table[f].timer, 3, f
        clock.now = at
        if kind == 0:
            break
        if kind == 1:
            _arrive(w)
            index = requests[clock.next_request - 1].function_of
        elif kind == 2:
            _instance_event(w, index)
            index = w.instance_table[index].function
        # In one place for all events: it is most of the code, and each place would have its own.
        dispatch(w, index)


@within
def _arrive(w: World) -> None:
    clock = w.clock_table[0]
    request = clock.next_request
    clock.next_request += 1
    f = w.request_table[request].function_of
    own = w.function_table[f]
    own.arrived += 1
    if own.queue_length >= own.queue_limit:
        own.refused += 1
        w.request_table[request].outcome = REFUSED
        return
    w.queue[f, (own.queue_head + own.queue_length) % w.queue.shape[1]] = request
    own.queue_length += 1


TOKENS_COUNT = 0.1
"""Weight of the time until tokens are repaid where the pace is longer: it parts those that are alike."""


@within
def dispatch(w: World, f: int) -> None:
    """Give what waits for function `f` to its idle instances."""
    own, now = w.function_table[f], w.clock_table[0].now
    own.timer = np.inf
    while own.queue_length > 0:
        best, soonest = -1, np.inf
        for m in range(own.member_count):
            i = w.members[f, m]
            one = w.instance_table[i]
            if one.stage == IDLE and one.draining == 0:
                n = min(one.batch, own.queue_length)
                refill(w, i)
                # Where it is released first; a larger batch is as good as several small ones. Among those
                # alike the one with most tokens: or some would run out of them while others' are full.
                repaid = (w.device[i, n] - one.tokens) / one.quota
                takes = (max(w.pace[i, n], repaid) + TOKENS_COUNT * repaid) / n
                if takes < soonest:
                    best, soonest = i, takes
        if best < 0:
            return
        due = w.request_table[w.queue[f, own.queue_head]].arrival + own.most_delay
        if own.queue_length < w.instance_table[best].batch and due > now:
            own.timer = due
            return
        _begin(w, f, best)


@within
def _begin(w: World, f: int, i: int) -> None:
    clock, own, one = w.clock_table[0], w.function_table[f], w.instance_table[i]
    now, n, ring = clock.now, min(one.batch, own.queue_length), w.queue.shape[1]
    for k in range(n):
        request = w.queue[f, (own.queue_head + k) % ring]
        w.carried[i, k] = request
        w.request_table[request].tries += 1
    own.queue_head = (own.queue_head + n) % ring
    own.queue_length -= n
    one.carried_count = n
    one.begun_at = now
    factor = w.noise[clock.next_noise % len(w.noise)] * slowed(w, i)
    clock.next_noise += 1
    one.work = w.device[i, n] * factor
    one.pace_until = now + w.pace[i, n] * factor
    one.work_left = one.work
    one.host_used += w.host[i, n]
    one.stage = RUNNING
    enter_device(w, i)


@within
def _instance_event(w: World, i: int) -> None:
    one, now = w.instance_table[i], w.clock_table[0].now
    if one.stage == RUNNING:
        leave_device(w, i)
        # The cap comes after the charge: a run longer than the window earned while it ran.
        one.tokens += one.quota * (now - one.tokens_at) - one.work
        one.tokens = min(one.tokens, one.quota * one.window)
        one.tokens_at = now
        one.device_used += one.work
        one.batches += 1
        one.requests += one.carried_count
        one.executing += max(now, one.pace_until) - one.begun_at
        one.stage = HOLDING
        hold(w, i)
        if one.event_at > now:
            return
    if one.stage == HOLDING:
        _release(w, i)
    one.event_at = np.inf
    one.stage = IDLE
    if one.draining == 1:
        _take_away(w, i)


@within
def _release(w: World, i: int) -> None:
    one, now = w.instance_table[i], w.clock_table[0].now
    own = w.function_table[one.function]
    for k in range(one.carried_count):
        request = w.request_table[w.carried[i, k]]
        request.latency = now - request.arrival
        request.outcome = SERVED
        w.recent[one.function, own.served % w.recent.shape[1]] = request.latency
        own.served += 1
        if request.latency > own.objective:
            own.late += 1
    one.carried_count = 0


@within
def stop(w: World, i: int) -> None:
    """Take instance `i` away; what it carried goes back to the head of the queue, or is lost after
    `MOST_TRIES`."""
    _take_away(w, i)
    dispatch(w, w.instance_table[i].function)


@within
def _take_away(w: World, i: int) -> None:
    one = w.instance_table[i]
    f = one.function
    own, ring = w.function_table[f], w.queue.shape[1]
    if one.stage == RUNNING:
        leave_device(w, i)
    for k in range(one.carried_count - 1, -1, -1):
        request = w.carried[i, k]
        if w.request_table[request].tries >= MOST_TRIES:
            w.request_table[request].outcome = LOST
            own.lost += 1
            continue
        own.queue_head = (own.queue_head - 1) % ring
        w.queue[f, own.queue_head] = request
        own.queue_length += 1
    one.carried_count = 0
    one.stage = ABSENT
    one.event_at = np.inf
    one.stopped_at = w.clock_table[0].now
    last = own.member_count - 1
    for m in range(last + 1):
        if w.members[f, m] == i:
            w.members[f, m] = w.members[f, last]
            break
    own.member_count = last


@within
def start(w: World, i: int, ready_at: float) -> None:
    """Start instance `i`, whose function, row and configuration are set; it serves from `ready_at`."""
    one, clock = w.instance_table[i], w.clock_table[0]
    own = w.function_table[one.function]
    w.members[one.function, own.member_count] = i
    own.member_count += 1
    one.stage = STARTING
    one.draining = 0
    one.carried_count = 0
    one.event_at = ready_at
    one.stopped_at = np.nan
    one.batches = 0
    one.requests = 0
    one.executing = 0.0
    one.device_used = 0.0
    one.host_used = 0.0
    clock.slots = max(clock.slots, i + 1)
    # A fresh bucket is full: the instance has used nothing.
    one.tokens = one.quota * one.window
    one.tokens_at = ready_at


@within
def drain(w: World, i: int) -> None:
    """Give instance `i` nothing more; it stops when its batch is done."""
    one = w.instance_table[i]
    one.draining = 1
    if one.stage == IDLE or one.stage == STARTING:
        stop(w, i)
