"""What profiled networks taught about how networks differ: the prior of the curves.

The curves of a network are log D over (batch, SM) and log H over (batch, SM, quota). Both are Gaussian
around what the graph predicts, with covariances learned from the training networks:

    log D:  one matrix over (batch, SM)
    log H:  a sum of Kronecker products C_batch x C_sm x C_quota, one for each way in which host time
            varies: from network to network, between campaigns (a step at some SM partition), from
            process to process (each SM partition was measured in a process of its own), with the batch.

The host curve over the quota is not Gaussian from network to network: it jumps with the scheduling
window. So the training networks' own curves serve as prototypes (a kernel density of host curves).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rapp.types import FloatArray


@dataclass(frozen=True)
class Component:
    """One term of the covariance of log H: (B, B) x (S, S) x (Q, Q) over the trained axes."""

    batch: FloatArray
    sm: FloatArray
    quota: FloatArray


@dataclass(frozen=True)
class Structure:
    """Covariances and prototypes over the trained axes; B, S, Q are their lengths.

    Args:
        device: (B * S, B * S) covariance of log D around the graph's answer.
        shared: (Q, Q) covariance of a network's host curve around the graph's answer.
        local: (Q, Q) covariance of a network's host curve around a prototype.
        variation: the other terms of log H.
        prototypes: (P, Q) log host curves, ms, of the training networks.
        noise: standard deviation of one measured log latency.
    """

    device: FloatArray
    shared: FloatArray
    local: FloatArray
    variation: tuple[Component, ...]
    prototypes: FloatArray
    noise: float
    names: tuple[str, ...] = field(default=())

    def without(self, network: str) -> Structure:
        """The same without the prototype of `network`, so that it can be predicted as if unseen."""
        keep = [i for i, name in enumerate(self.names) if name != network]
        return Structure(
            self.device, self.shared, self.local, self.variation, self.prototypes[keep], self.noise,
            tuple(self.names[i] for i in keep),
        )  # fmt: skip

    def to_arrays(self) -> dict[str, FloatArray]:
        """Plain arrays for an npz file (float32, no pickle)."""
        arrays = {
            "device": self.device, "shared": self.shared, "local": self.local,
            "prototypes": self.prototypes, "noise": np.array(self.noise),
        }  # fmt: skip
        for i, part in enumerate(self.variation):
            arrays |= {f"batch_{i}": part.batch, f"sm_{i}": part.sm, f"quota_{i}": part.quota}
        return {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray], names: tuple[str, ...] = ()) -> Structure:
        """What `to_arrays` wrote."""
        wide = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
        count = sum(name.startswith("batch_") for name in wide)
        parts = tuple(
            Component(wide[f"batch_{i}"], wide[f"sm_{i}"], wide[f"quota_{i}"]) for i in range(count)
        )
        return cls(
            wide["device"],
            wide["shared"],
            wide["local"],
            parts,
            wide["prototypes"],
            float(wide["noise"]),
            names,
        )


def default_structure(batch: FloatArray, sm_pct: FloatArray, quota_pct: FloatArray) -> Structure:
    """A wide prior before anything was learned, for log D and log H around rough curves.

    The scales are broad guesses (a factor of 4 between networks, 25 % in the slopes); the first fit of
    profiles only needs them to be wider than the truth.
    """
    log_b, log_s, log_q = np.log(batch), np.log(sm_pct / 100), np.log(quota_pct / 100)
    ones_b, ones_s = np.ones((len(batch),) * 2), np.ones((len(sm_pct),) * 2)
    ones_q, eye_q = np.ones((len(quota_pct),) * 2), np.eye(len(quota_pct))
    slope_b, slope_s = (np.outer(x - x.mean(), x - x.mean()) for x in (log_b, log_s))
    device = (
        1.5**2 * np.kron(ones_b, ones_s)
        + 0.25**2 * (np.kron(slope_b, ones_s) + np.kron(ones_b, slope_s))
        + 0.2**2 * np.kron(kernel(log_b, 1.5), kernel(log_s, 1.2))
        + 0.03**2 * np.kron(kernel(log_b, 0.7), kernel(log_s, 0.4))
        + 0.01**2 * np.eye(len(batch) * len(sm_pct))
    )
    shared = 1.0 * ones_q + 0.3 * kernel(log_q, 0.8) + 0.02 * eye_q
    # How a second campaign's host differs over the quota: fully at 100 %, hardly at 10 %.
    pattern = np.clip((quota_pct / 100) ** 2, 0.05, 1.0)
    between = 0.15 * np.outer(pattern, pattern) + 0.02 * kernel(log_q, 0.4)
    with_batch = 0.15**2 * ones_q + 0.08**2 * kernel(log_q, 0.5) + 0.02**2 * eye_q
    variation = variation_of(batch, sm_pct, quota_pct, between, with_batch)
    return Structure(device, shared, shared, variation, np.zeros((0, len(quota_pct))), 0.03)


def variation_of(
    batch: FloatArray, sm_pct: FloatArray, quota_pct: FloatArray, between: FloatArray, with_batch: FloatArray
) -> tuple[Component, ...]:
    """The terms of log H within one network.

    Args:
        between: (Q, Q) covariance of the difference between two campaigns.
        with_batch: (Q, Q) covariance of the host time's change from the smallest to the largest batch.
    """
    log_b, log_q = np.log(batch), np.log(quota_pct / 100)
    ones_b, ones_s = np.ones((len(batch),) * 2), np.ones((len(sm_pct),) * 2)
    ones_q, eye_b, eye_s = np.ones((len(quota_pct),) * 2), np.eye(len(batch)), np.eye(len(sm_pct))
    half_b = 0.5 * ones_b + 0.5 * eye_b
    # A step at one uniformly distributed place has a covariance that falls linearly with distance;
    # the variogram of the V100 profiles is that straight line.
    place = (sm_pct - sm_pct[0]) / max(float(np.ptp(sm_pct)), 1.0)
    step = 1 - np.abs(place[:, None] - place[None])
    growth = (log_b - log_b[0]) / max(float(np.ptp(log_b)), 1e-9)
    walk = np.minimum(growth[:, None], growth[None])
    return (
        Component(ones_b, step, between),
        Component(walk, ones_s, with_batch),
        # From process to process the host's speed varies by 4 to 6 % (V100 profiles: 5.8 %).
        Component(ones_b, eye_s, 0.04**2 * ones_q),
        Component(half_b, eye_s, 0.03**2 * kernel(log_q, 0.3)),
        Component(half_b, kernel(place, 0.2), 0.03**2 * np.eye(len(quota_pct))),
        Component(eye_b, eye_s, 0.01**2 * ones_q),
    )


def kernel(x: FloatArray, length: float) -> FloatArray:
    """Squared exponential kernel over the coordinates `x` (N,): (N, N)."""
    return np.asarray(np.exp(-0.5 * ((x[:, None] - x[None]) / length) ** 2))
