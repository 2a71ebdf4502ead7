"""What the demonstration measures on this machine, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass

TRAINED = ("light_shufflenet", "light_squeezenet")
UNSEEN = "light_resnet50"
"""Held out of the training. Its operators all occur in `TRAINED`, so that no answer is an extrapolation.

The structures are as published, the weights constant: latency hangs on the structure alone. They ship with
the package onnx.
"""


@dataclass(frozen=True)
class Sweep:
    """A grid, and how precisely its points are measured.

    Args:
        folder: of its results. quota_pct, batch: of the grid. max_samples, max_seconds: of a point.
        stop_width_pct: half the interval of a point's median at which it is done, %.
        steps: of an encoder's training; so few points are learned after some dozens.
        points: of the unseen network that calibrate the predictor.
    """

    folder: str
    quota_pct: tuple[int, ...]
    batch: tuple[int, ...]
    max_samples: int
    max_seconds: float
    stop_width_pct: float
    steps: int
    points: int

    def options(self, sm_pct: tuple[str, ...]) -> tuple[str, ...]:
        """The grid as options of `rapp profile`."""
        return (
            "--sm", ",".join(sm_pct),
            "--quota", ",".join(map(str, self.quota_pct)),
            "--batch", ",".join(map(str, self.batch)),
            "--max-samples", str(self.max_samples),
            "--max-seconds", f"{self.max_seconds:g}",
            "--stop-width", f"{self.stop_width_pct:g}",
        )  # fmt: skip

    def answered(self, sm_pct: tuple[str, ...]) -> tuple[str, ...]:
        """The grid of `rapp recommend`: the quotas between those measured too."""
        return (
            "--sm", ",".join(sm_pct),
            "--quota", f"{min(self.quota_pct)}:100:5",
            "--batch", ",".join(map(str, self.batch)),
        )  # fmt: skip


FULL = Sweep("demo", (40, 70, 100), (1, 2, 4), 40, 0.8, 2, 150, 5)
QUICK = Sweep("demo-quick", (40, 70, 100), (1,), 20, 0.1, 10, 40, 2)


def partitions(n_cores: int) -> tuple[str, ...]:
    """SM partitions of a machine, %, as options are written: a quarter of its cores, half, and all.

    Each is a whole number of cores; a single core is one partition.
    """
    counts = sorted({max(1, n_cores // part) for part in (4, 2, 1)})
    return tuple(f"{100 * count / n_cores:.1f}".removesuffix(".0") for count in counts)
