"""The grid on which curves are tabulated, and how a configuration between its knots is read.

Curves live on knots because every part of the system can then agree on them: training fits them,
calibration corrects them, the exported decoder interpolates them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapp.errors import ConfigError
from rapp.types import FloatArray

# Knots beyond the training's own values, so that an answer far outside is an extrapolation along the
# operators' law instead of a clamp. It is marked as one.
EXTRA_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)
EXTRA_SM_PCT = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
MAX_AXIS = 64

IndexArray = NDArray[np.int64]


@dataclass(frozen=True)
class Knots:
    """The axes of all tables, ascending, and the part of them that training saw.

    Args:
        batch: (B,) batches. sm_pct: (S,) SM partitions, %. quota_pct: (Q,) time quotas, %; the last is 100.
        trained_batch, trained_sm_pct, trained_quota_pct: the values in the training rows.
    """

    batch: FloatArray
    sm_pct: FloatArray
    quota_pct: FloatArray
    trained_batch: FloatArray
    trained_sm_pct: FloatArray
    trained_quota_pct: FloatArray

    @classmethod
    def around(cls, batch: ArrayLike, sm_pct: ArrayLike, quota_pct: ArrayLike) -> Knots:
        """Knots for training rows with these values.

        Raises:
            ConfigError: more than 64 distinct values on an axis.
        """
        trained = [np.unique(np.asarray(axis, dtype=np.float64)) for axis in (batch, sm_pct, quota_pct)]
        for name, axis in zip(("batch", "sm_pct", "quota_pct"), trained, strict=True):
            if len(axis) > MAX_AXIS:
                raise ConfigError(
                    f"the profiles hold {len(axis)} different values of {name}:"
                    f" round them to a grid of at most {MAX_AXIS}"
                )
        return cls(
            np.union1d(trained[0], np.array(EXTRA_BATCH, dtype=np.float64)),
            np.union1d(trained[1], np.array(EXTRA_SM_PCT)),
            np.union1d(trained[2], np.array([100.0])),
            *trained,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, S, Q)."""
        return len(self.batch), len(self.sm_pct), len(self.quota_pct)

    def nearest(
        self, batch: ArrayLike, sm_pct: ArrayLike, quota_pct: ArrayLike
    ) -> tuple[IndexArray, IndexArray, IndexArray]:
        """Indices (N,) of the knots nearest to N configurations, by the ratio of values."""
        return (
            _nearest(self.batch, batch),
            _nearest(self.sm_pct, sm_pct),
            _nearest(self.quota_pct, quota_pct),
        )

    def trained_index(self, axis: str) -> IndexArray:
        """For each knot of `axis` (batch, sm_pct or quota_pct) the index of the nearest trained value."""
        return _nearest(getattr(self, f"trained_{axis}"), getattr(self, axis))

    def trained_quota(self) -> IndexArray:
        """Indices of the quota knots that training saw (and of 100 % if it saw none)."""
        return _nearest(self.quota_pct, self.trained_quota_pct)

    def outside(self, batch: ArrayLike, sm_pct: ArrayLike, quota_pct: ArrayLike) -> NDArray[np.bool_]:
        """(N,) true where a configuration lies outside the range of the training rows."""
        result = np.zeros(np.broadcast(batch, sm_pct, quota_pct).shape, dtype=bool)
        for values, trained in (
            (batch, self.trained_batch),
            (sm_pct, self.trained_sm_pct),
            (quota_pct, self.trained_quota_pct),
        ):
            value = np.asarray(values, dtype=np.float64)
            result |= (value < trained[0] - 1e-9) | (value > trained[-1] + 1e-9)
        return result

    def to_dict(self) -> dict[str, list[float]]:
        """Lists for JSON; `from_dict` reads them."""
        return {name: [float(v) for v in getattr(self, name)] for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, axes: dict[str, list[float]]) -> Knots:
        """The knots that `to_dict` wrote."""
        return cls(**{name: np.array(values, dtype=np.float64) for name, values in axes.items()})


def _nearest(axis: FloatArray, values: ArrayLike) -> IndexArray:
    distance = np.abs(
        np.log(np.atleast_1d(np.asarray(values, dtype=np.float64)))[:, None] - np.log(axis)[None]
    )
    return np.asarray(distance.argmin(axis=1), dtype=np.int64)
