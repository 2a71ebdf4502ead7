"""The state of a replay as arrays, so that the event loop can be compiled.

F functions, I instances, R rows, G GPUs, N requests, B the largest batch. All times are seconds of the
trace; device time too. A slot of an instance is used again after it has stopped.

What belongs to one thing is one record of a table. A compiled call hands over every array that the world has,
so that a world of sixty arrays costs more to hand over than an event costs to process.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapp.types import FloatArray
from scaler.replay.tables import Table, column, table

IntArray = NDArray[np.int64]

ABSENT, STARTING, IDLE, RUNNING, HOLDING = range(5)
"""Stages of an instance. RUNNING: its batch needs the device; HOLDING: it waits for the host or for quota."""

WAITING, SERVED, REFUSED, LOST = range(4)
"""Outcomes of a request; LOST: the instance died and no try was left. WAITING at the end is unfinished."""

MOST_RECENT = 512
"""Answers of a function whose latency is kept for observations."""

MOST_IN_ROW = 100
"""Instances that one row can have: quotas are at least 1 %."""

# The time; the request of the trace and the factor of the noise that come next; slots ever used.
CLOCK = np.dtype([("now", "f8"), ("next_request", "i8"), ("next_noise", "i8"), ("slots", "i8")])

# latency: NaN, none yet. tries: times that it was begun.
REQUEST = np.dtype(
    [("arrival", "f8"), ("latency", "f8"), ("function_of", "i4"), ("outcome", "u1"), ("tries", "u1")],
    align=True,
)

# The queue is a ring of request numbers, at `queue`. Counts go up only.
FUNCTION = np.dtype(
    [
        ("queue_head", "i8"),
        ("queue_length", "i8"),
        ("queue_limit", "i8"),
        ("most_delay", "f8"),
        ("objective", "f8"),
        ("timer", "f8"),
        ("member_count", "i8"),
        ("arrived", "i8"),
        ("served", "i8"),
        ("late", "i8"),
        ("refused", "i8"),
        ("lost", "i8"),
    ]
)

INSTANCE = np.dtype(
    [
        # Next event; what it is and has.
        ("event_at", "f8"),
        ("function", "i8"),
        ("row", "i8"),
        ("batch", "i8"),
        ("quota", "f8"),
        ("window", "f8"),
        # The token bucket: device time saved (negative: owed) at the time it was last looked at.
        ("tokens", "f8"),
        ("tokens_at", "f8"),
        # The batch that it executes: how many requests, when begun, what it costs and what is left.
        ("carried_count", "i8"),
        ("begun_at", "f8"),
        ("pace_until", "f8"),
        ("work", "f8"),
        ("work_left", "f8"),
        # Sums over batches: number, requests, time until computed, device time, host time.
        ("batches", "i8"),
        ("requests", "i8"),
        ("executing", "f8"),
        ("device_used", "f8"),
        ("host_used", "f8"),
        ("stopped_at", "f8"),
        ("stage", "u1"),
        ("draining", "u1"),
    ],
    align=True,
)

# on_device_count: instances whose batch needs the row's device now.
ROW = np.dtype([("row_gpu", "i8"), ("on_device_count", "i8"), ("row_seen_at", "f8"), ("row_busy", "f8")])

_PLACE = {
    name: place
    for place, of in enumerate((CLOCK, REQUEST, FUNCTION, INSTANCE, ROW))
    for name in of.names or ()
}
"""In which of a world's tables a field is."""


class World(NamedTuple):
    """Everything that the event loop reads and writes.

    Outside compiled code a field of a table is an attribute: `world.latency` is that of all requests.
    """

    clock_table: Table
    request_table: Table
    function_table: Table
    instance_table: Table
    row_table: Table

    # Functions: waiting requests (F, Q), latencies answered last (F, L): that of the k-th answer is at
    # column k % L; their instances (F, I).
    queue: IntArray
    recent: FloatArray
    members: IntArray
    # Instances: device time, pace and host time of a batch of n at column n (I, B + 1); requests in the
    # batch that it executes (I, B).
    device: FloatArray
    pace: FloatArray
    host: FloatArray
    carried: IntArray
    # Rows: instances on the device (R, MOST_IN_ROW). GPUs: busy rows (G,).
    on_device: IntArray
    busy_rows: IntArray
    # Factors on the times of one run (M,), used in turn; factor on a batch of function f beside a busy row of
    # function g (F, F).
    noise: FloatArray
    beside: FloatArray

    def __getattr__(self, name: str) -> NDArray[Any]:
        """A field of all records of a table, as a view."""
        if name not in _PLACE:
            raise AttributeError(name)
        return column(self[_PLACE[name]], name)


def empty_world(
    arrival: FloatArray,
    function_of: IntArray,
    *,
    queue_limit: IntArray,
    most_delay_s: FloatArray,
    objective_s: FloatArray,
    row_gpu: IntArray,
    gpus: int,
    instances: int,
    most_batch: int,
    noise: FloatArray,
    beside: float | FloatArray,
) -> World:
    """A world before its first event, without instances.

    Args:
        arrival: (N,) sorted arrival times, s. function_of: (N,) index of the function of each.
        queue_limit, most_delay_s, objective_s: (F,) of the functions.
        row_gpu: (R,) GPU of each row.
        instances: slots for instances, I.
        most_batch: largest batch, B.
        noise: (M,) factors on the times of a run, mean 1.
        beside: factor on the times of a batch that begins while another row of the GPU is busy, or (F, F)
            by its function and that of the other row.
    """
    functions, rows = len(queue_limit), len(row_gpu)
    # Requests that come back from a lost instance go to the head, beyond the limit for new ones.
    ring = int(queue_limit.max(initial=1)) + instances * most_batch + 1
    return World(
        clock_table=table(CLOCK, 1),
        request_table=table(
            REQUEST, len(arrival), {"arrival": arrival, "latency": np.nan, "function_of": function_of}
        ),
        function_table=table(
            FUNCTION,
            functions,
            {
                "queue_limit": queue_limit,
                "most_delay": most_delay_s,
                "objective": objective_s,
                "timer": np.inf,
            },
        ),
        instance_table=table(
            INSTANCE,
            instances,
            {"event_at": np.inf, "stopped_at": np.nan, "batch": 1, "quota": 1.0, "window": 1.0},
        ),
        row_table=table(ROW, rows, {"row_gpu": row_gpu}),
        queue=np.zeros((functions, ring), dtype=np.int64),
        recent=np.zeros((functions, MOST_RECENT)),
        members=np.zeros((functions, instances), dtype=np.int64),
        device=np.zeros((instances, most_batch + 1)),
        pace=np.zeros((instances, most_batch + 1)),
        host=np.zeros((instances, most_batch + 1)),
        carried=np.zeros((instances, most_batch), dtype=np.int64),
        on_device=np.zeros((rows, MOST_IN_ROW), dtype=np.int64),
        busy_rows=np.zeros(gpus, dtype=np.int64),
        noise=np.asarray(noise, dtype=np.float64),
        beside=np.array(np.broadcast_to(beside, (functions, functions)), dtype=np.float64),
    )
