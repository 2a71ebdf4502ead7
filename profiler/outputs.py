"""Whether a network answers at an SM partition as it does at SM 100 %.

A runtime may choose other kernels for fewer multiprocessors; those may round differently, but not compute
something else. Two outputs agree if shapes and data types do and

    max |a - b| <= tolerance * max |b|        b: at SM 100 %

with the tolerance of their data type; infinities and NaN must be in the same places. Integers and booleans
must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from profiler.device import Device, Failure, MeasureError, NetworkFile, Session
from profiler.plan import FULL_PCT

Outputs = Sequence[NDArray[np.generic]]

TOLERANCES = {"float64": 1e-6, "float32": 5e-3, "float16": 2e-2}
"""By data type. For float32 wide enough for kernels with TF32 products, whose mantissa of 10 bits rounds by
2^-11 = 5e-4 each; for float16 its own 2^-11 also rounds every sum that is stored."""


def disagreement(ours: Outputs, reference: Outputs) -> str | None:
    """How two lists of outputs differ, for a person; None if they agree."""
    if len(ours) != len(reference):
        return f"{len(ours)} outputs instead of {len(reference)}"
    for place, (a, b) in enumerate(zip(ours, reference, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {place} is {a.dtype}{list(a.shape)} instead of {b.dtype}{list(b.shape)}"
        tolerance = TOLERANCES.get(str(b.dtype))
        if tolerance is None:
            differing = int(np.sum(a != b))
            if differing:
                return f"{differing:,} of {b.size:,} values of output {place} differ"
        else:
            off = _relative_difference(a.astype(np.float64), b.astype(np.float64))
            if off > tolerance:
                return f"output {place} differs by {off:.2g} of its range, more than {tolerance:g}"
    return None


def _relative_difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    off, scale = np.max(np.abs(a[finite] - b[finite])), np.max(np.abs(b[finite]))
    return 0.0 if off == 0 else float(off / scale) if scale > 0 else float("inf")


class References:
    """The outputs of one network at SM 100 %, by batch; kept in memory for the time of its sweep.

    Args:
        network: which.
        batches: those that will be compared.
    """

    def __init__(self, network: NetworkFile, batches: Sequence[int]) -> None:
        self._network = network
        self._missing = sorted(set(batches))
        self._outputs: dict[int, tuple[NDArray[np.generic], ...]] = {}

    def make(self, device: Device) -> None:
        """Fill in what is missing, in a session of its own; nothing if nothing is.

        What cannot be run at SM 100 % has no reference, and is not compared.
        """
        if not self._missing:
            return
        try:
            with device.open(self._network, FULL_PCT) as session:
                self.take(session)
        except MeasureError:
            self._missing.clear()

    def take(self, session: Session) -> None:
        """Fill in what is missing from a session at SM 100 %, which it leaves at another batch.

        Raises:
            MeasureError: a batch cannot be run; neither it nor larger ones have a reference then.
        """
        missing, self._missing = self._missing, []
        for batch in missing:
            session.prepare(batch)
            outputs = session.outputs()
            if outputs is None:
                return
            self._outputs[batch] = tuple(np.array(output, copy=True) for output in outputs)

    def compare(self, batch: int, outputs: Outputs | None) -> bool:
        """Whether there is a reference at `batch`, with which the outputs agree.

        Raises:
            MeasureError: they differ.
        """
        reference = self._outputs.get(batch)
        if reference is None or outputs is None:
            return False
        difference = disagreement(outputs, reference)
        if difference is not None:
            raise MeasureError(Failure.WRONG_OUTPUT, difference)
        return True
