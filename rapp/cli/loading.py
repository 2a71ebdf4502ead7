"""What the commands on an artifact and a network have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapp.types import QuotaKind, ResourceGrid

if TYPE_CHECKING:
    from rapp.predictor import NetworkPredictor, Predictor

Artifact = Annotated[
    Path, typer.Argument(help="A predictor artifact: a folder such as models/v100.", show_default=False)
]
Network = Annotated[
    Path,
    typer.Argument(help="The network, an ONNX file; it may lack its weights.", show_default=False),
]
Calibration = Annotated[
    Path | None,
    typer.Option(help="Measured points of this network, from `rapp calibrate`.", show_default=False),
]
Kind = Annotated[
    QuotaKind | None,
    typer.Option(help="What the quota limits; default: what the artifact learned.", show_default=False),
]


def load(
    artifact: Path, network: Path, calibration: Path | None = None
) -> tuple[Predictor, NetworkPredictor]:
    """The artifact, or that of a training run, and its answers for a network.

    Raises:
        RappError: either cannot be read, or ONNX Runtime is missing.
    """
    from rapp.evaluation.source import artifact_folder
    from rapp.predictor import Predictor

    predictor = Predictor.load(artifact_folder(artifact))
    return predictor, predictor.network(network, calibration=calibration)


def grid_of(
    network: NetworkPredictor,
    sm: tuple[float, ...],
    quota: tuple[float, ...],
    batch: tuple[int, ...] | None,
    default: tuple[int, ...],
) -> ResourceGrid:
    """The grid asked for; without batches the default, or the only one that the network serves."""
    if batch is None:
        fixed = network.graph.fixed_batch if network.graph.only_batch is not None else None
        batch = default if fixed is None else (fixed,)
    return ResourceGrid(sm, quota, batch)
