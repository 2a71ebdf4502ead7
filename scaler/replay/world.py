"""The state of a replay as arrays, so that the event loop can be compiled.

F functions, I instances, R rows, G GPUs, N requests, B the largest batch. All times are seconds of the
trace; device time too. A slot of an instance is used again after it has stopped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapp.types import FloatArray

IntArray = NDArray[np.int64]

ABSENT, STARTING, IDLE, RUNNING, HOLDING = range(5)
"""Stages of an instance. RUNNING: its batch needs the device; HOLDING: it waits for the host or for quota."""

WAITING, SERVED, REFUSED, LOST = range(4)
"""Outcomes of a request; LOST: the instance died and no try was left. WAITING at the end is unfinished."""

MOST_RECENT = 512
"""Answers of a function whose latency is kept for observations."""

MOST_IN_ROW = 100
"""Instances that one row can have: quotas are at least 1 %."""


class World(NamedTuple):
    """Everything that the event loop reads and writes."""

    # The clock: [now]. Places: [next request of the trace, next factor of the noise, slots ever used].
    now: FloatArray
    cursor: IntArray

    # Requests (N,): arrival, function, latency (NaN: none yet), outcome, times that they were begun.
    arrival: FloatArray
    function_of: IntArray
    latency: FloatArray
    outcome: NDArray[np.uint8]
    tries: NDArray[np.uint8]

    # Functions (F,): the queue is a ring of request numbers (F, Q). Counts go up only.
    queue: IntArray
    queue_head: IntArray
    queue_length: IntArray
    queue_limit: IntArray
    most_delay: FloatArray
    objective: FloatArray
    timer: FloatArray
    arrived: IntArray
    served: IntArray
    late: IntArray
    refused: IntArray
    lost: IntArray
    # Latencies answered last, (F, L): that of the k-th answer is at column k % L.
    recent: FloatArray
    members: IntArray
    member_count: IntArray

    # Instances (I,): configuration; device time, pace and host time of a batch of n at column n, (I, B + 1).
    stage: NDArray[np.uint8]
    draining: NDArray[np.uint8]
    function: IntArray
    row: IntArray
    batch: IntArray
    quota: FloatArray
    window: FloatArray
    device: FloatArray
    pace: FloatArray
    host: FloatArray
    # The token bucket: device time saved (negative: owed) at the time it was last looked at.
    tokens: FloatArray
    tokens_at: FloatArray
    # The batch that it executes: requests (I, B), how many, when begun, what it costs and what is left.
    carried: IntArray
    carried_count: IntArray
    begun_at: FloatArray
    pace_until: FloatArray
    work: FloatArray
    work_left: FloatArray
    event_at: FloatArray
    stopped_at: FloatArray
    # Sums over batches: number, requests, time until computed, device time, host time.
    batches: IntArray
    requests: IntArray
    executing: FloatArray
    device_used: FloatArray
    host_used: FloatArray

    # Rows (R,): the instances whose batch needs its device now, (R, MOST_IN_ROW). GPUs (G,): busy rows.
    row_gpu: IntArray
    on_device: IntArray
    on_device_count: IntArray
    row_seen_at: FloatArray
    row_busy: FloatArray
    busy_rows: IntArray

    # Factors on the times of one run (M,), used in turn; factor of a batch beside a busy row.
    noise: FloatArray
    beside: FloatArray


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
    beside: float,
) -> World:
    """A world before its first event, without instances.

    Args:
        arrival: (N,) sorted arrival times, s. function_of: (N,) index of the function of each.
        queue_limit, most_delay_s, objective_s: (F,) of the functions.
        row_gpu: (R,) GPU of each row.
        instances: slots for instances, I.
        most_batch: largest batch, B.
        noise: (M,) factors on the times of a run, mean 1.
        beside: factor on device time while another row of the GPU is busy.
    """
    functions, requests, rows = len(queue_limit), len(arrival), len(row_gpu)

    def zeros(*shape: int) -> FloatArray:
        return np.zeros(shape)

    def counts(*shape: int) -> IntArray:
        return np.zeros(shape, dtype=np.int64)

    # Requests that come back from a lost instance go to the head, beyond the limit for new ones.
    ring = int(queue_limit.max(initial=1)) + instances * most_batch + 1
    return World(
        now=zeros(1),
        cursor=counts(3),
        arrival=np.ascontiguousarray(arrival, dtype=np.float64),
        function_of=np.ascontiguousarray(function_of, dtype=np.int64),
        latency=np.full(requests, np.nan),
        outcome=np.zeros(requests, dtype=np.uint8),
        tries=np.zeros(requests, dtype=np.uint8),
        queue=counts(functions, ring),
        queue_head=counts(functions),
        queue_length=counts(functions),
        queue_limit=np.asarray(queue_limit, dtype=np.int64),
        most_delay=np.asarray(most_delay_s, dtype=np.float64),
        objective=np.asarray(objective_s, dtype=np.float64),
        timer=np.full(functions, np.inf),
        arrived=counts(functions),
        served=counts(functions),
        late=counts(functions),
        refused=counts(functions),
        lost=counts(functions),
        recent=zeros(functions, MOST_RECENT),
        members=counts(functions, instances),
        member_count=counts(functions),
        stage=np.zeros(instances, dtype=np.uint8),
        draining=np.zeros(instances, dtype=np.uint8),
        function=counts(instances),
        row=counts(instances),
        batch=np.ones(instances, dtype=np.int64),
        quota=np.ones(instances),
        window=np.ones(instances),
        device=zeros(instances, most_batch + 1),
        pace=zeros(instances, most_batch + 1),
        host=zeros(instances, most_batch + 1),
        tokens=zeros(instances),
        tokens_at=zeros(instances),
        carried=counts(instances, most_batch),
        carried_count=counts(instances),
        begun_at=zeros(instances),
        pace_until=zeros(instances),
        work=zeros(instances),
        work_left=zeros(instances),
        event_at=np.full(instances, np.inf),
        stopped_at=np.full(instances, np.nan),
        batches=counts(instances),
        requests=counts(instances),
        executing=zeros(instances),
        device_used=zeros(instances),
        host_used=zeros(instances),
        row_gpu=np.asarray(row_gpu, dtype=np.int64),
        on_device=counts(rows, MOST_IN_ROW),
        on_device_count=counts(rows),
        row_seen_at=zeros(rows),
        row_busy=zeros(rows),
        busy_rows=counts(gpus),
        noise=np.asarray(noise, dtype=np.float64),
        beside=np.array([beside]),
    )
