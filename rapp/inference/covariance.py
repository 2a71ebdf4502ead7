"""Covariances of log D and log H between configurations on the knots."""

from __future__ import annotations

import numpy as np

from rapp.inference.structure import Structure
from rapp.knots import IndexArray, Knots
from rapp.types import FloatArray

At = tuple[IndexArray, IndexArray, IndexArray]
"""Indices (N,) of knots: batch, SM partition, quota."""


class Covariance:
    """A structure's covariances, the trained axes being extended to all knots by their nearest value."""

    def __init__(self, structure: Structure, knots: Knots) -> None:
        self._structure = structure
        self._b, self._s, self._q = (knots.trained_index(axis) for axis in ("batch", "sm_pct", "quota_pct"))
        self._columns = len(knots.trained_sm_pct)

    def device(self, one: At, other: At) -> FloatArray:
        """(N, M) of log D."""
        row, column = (self._b[at[0]] * self._columns + self._s[at[1]] for at in (one, other))
        return _cross(self._structure.device, row, column)

    def curve(self, shared: FloatArray, one: At, other: At) -> FloatArray:
        """(N, M) of what all of a network's log H shares; `shared` is (Q, Q) over the trained quotas."""
        return _cross(shared, self._q[one[2]], self._q[other[2]])

    def variation(self, one: At, other: At) -> FloatArray:
        """(N, M) of the rest of log H, which varies within a network."""
        (b1, s1, q1), (b2, s2, q2) = self._trained(one), self._trained(other)
        total = np.zeros((len(b1), len(b2)))
        for part in self._structure.variation:
            term = _cross(part.batch, b1, b2)
            term *= _cross(part.sm, s1, s2)
            term *= _cross(part.quota, q1, q2)
            total += term
        return total

    def device_variance(self, at: At) -> FloatArray:
        """(N,): the diagonal of `device`."""
        index = self._b[at[0]] * self._columns + self._s[at[1]]
        return np.asarray(self._structure.device[index, index])

    def host_variance(self, shared: FloatArray, at: At) -> FloatArray:
        """(N,): the diagonal of `curve` plus that of `variation`."""
        b, s, q = self._trained(at)
        total = shared[q, q].copy()
        for part in self._structure.variation:
            total += part.batch[b, b] * part.sm[s, s] * part.quota[q, q]
        return np.asarray(total)

    def _trained(self, at: At) -> At:
        return self._b[at[0]], self._s[at[1]], self._q[at[2]]


def _cross(matrix: FloatArray, rows: IndexArray, columns: IndexArray) -> FloatArray:
    """`matrix[np.ix_(rows, columns)]`, several times as fast."""
    return matrix.take(rows, axis=0).take(columns, axis=1)
