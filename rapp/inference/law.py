"""How device time, host time and a quota make latency, with derivatives.

    T = softmax(D, H)                                    the slower of the two sets the pace
    launch_gate:  L = softmax(D, H(quota))               the quota stretches launching alone
    gpu_time:     L = max(T, D / quota - credit)         debt of the token bucket is waited for

`softmax` here is the p-norm soft maximum, (a^p + b^p)^(1/p): device and host now and then wait for each
other. A debt is paid back while nothing else happens, so that its maximum is sharp: at quota 100 % L = T.
`credit` is what the bucket earned while the loop idled: min(idle, window). The closed forms of the gpu_time
law are those of a token bucket in its fluid limit: saturated L = max(T, D / q), with idle time s
L = max(T, D / q - s), isolated and with a full bucket L = max(T, D / q - W).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapp.types import FloatArray

# Sharpness of the soft maximum. With 12 the two sides add 6 % where they are equal and under 0.1 %
# where one is 1.7 times the other: a knee as narrow as the public V100 profiles' noise can show.
SHARPNESS = 12.0


def soft_maximum(a: ArrayLike, b: ArrayLike, sharpness: float = SHARPNESS) -> FloatArray:
    """Soft maximum of two logarithms of times."""
    return np.asarray(np.logaddexp(sharpness * np.asarray(a), sharpness * np.asarray(b)) / sharpness)


def credit_ms(idle_ms: float, window_ms: float) -> float:
    """Device time, ms, that the bucket has saved up when a run of a closed loop begins."""
    return min(idle_ms, window_ms)


def log_latency(
    log_device: FloatArray,
    log_host: FloatArray,
    quota: FloatArray,
    gpu_time: NDArray[np.bool_],
    credit: float,
    sharpness: float = SHARPNESS,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log of the latency, ms, and its derivatives by log D and by log H; all arguments (N,).

    Args:
        log_device: log of device time, ms.
        log_host: log of host time, ms: under the quota for launch gates, without one for gpu_time.
        quota: share of the window, in (0, 1].
        gpu_time: which rows limit device time; the others gate launches.
        credit: `credit_ms`.
        sharpness: p of the soft maximum.
    """
    pace = soft_maximum(log_device, log_host, sharpness)
    by_device = _sigmoid(sharpness * (log_device - log_host))
    if not gpu_time.any():
        return pace, by_device, 1 - by_device
    # Where the credit covers the debt there is nothing to wait for: a time far below the pace.
    owed = np.maximum(np.exp(log_device) / quota - credit, 1e-3 * np.exp(log_device))
    log_owed = np.log(owed)
    limited = np.maximum(pace, log_owed)
    waits = (log_owed > pace).astype(np.float64)
    owed_by_device = np.exp(log_device) / quota / owed * (owed > 1.001e-3 * np.exp(log_device))
    latency = np.where(gpu_time, limited, pace)
    slope_device = np.where(gpu_time, waits * owed_by_device + (1 - waits) * by_device, by_device)
    slope_host = np.where(gpu_time, (1 - waits) * (1 - by_device), 1 - by_device)
    return latency, slope_device, slope_host


def non_increasing(log_table: FloatArray) -> FloatArray:
    """Nearest table (least squares) whose last axis, the quota ascending, does not increase.

    More quota never makes a run slower; measured steps that say so are noise. Isotonic regression by
    its min-max formula (Robertson, Wright, Dykstra 1988, theorem 1.4.4).
    """
    count = log_table.shape[-1]
    total = np.concatenate([np.zeros((*log_table.shape[:-1], 1)), np.cumsum(log_table, axis=-1)], axis=-1)
    first, last = np.arange(count)[:, None], np.arange(count)[None]
    means = (total[..., last + 1] - total[..., first]) / np.maximum(last + 1 - first, 1)
    # At [first, i]: the largest mean of a block from `first` that reaches i or beyond.
    largest = np.maximum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray(np.where(first <= last, largest, np.inf).min(axis=-2))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))
