"""`Predictor`: an artifact that answers how long a network takes under a resource configuration.

    predictor = Predictor.load("models/v100")
    network = predictor.network("net.onnx")
    network.latency(ResourceConfig(sm_pct=50, quota_pct=40, batch=4))

A network of the training answers from what was fitted to its own profiles. Any other answers from its
graph alone, until it is `calibrated` with measured points. Needs numpy and ONNX Runtime.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from rapp.artifact import Artifact, Card
from rapp.calibrate import read_points
from rapp.engine import Engine
from rapp.errors import CalibrationError, ConfigError
from rapp.graph import OperatorGraph
from rapp.network_predictor import LatencyColumns, NetworkPredictor
from rapp.types import QuotaKind, ResourceConfig

__all__ = ["LatencyColumns", "NetworkPredictor", "Predictor"]


class Predictor:
    """A loaded artifact. Threads may share it.

    Args:
        artifact: loaded and verified; `Predictor.load` does both.
        threads: how many cores one answer may use.

    Attributes:
        card: what the artifact says of itself.
    """

    def __init__(self, artifact: Artifact, *, threads: int = 1) -> None:
        self.card: Card = artifact.card
        self._engine = Engine(artifact, threads)

    @classmethod
    def load(cls, folder: str | Path, *, threads: int = 1) -> Predictor:
        """Load and verify the artifact in `folder`.

        Raises:
            ArtifactError: a file is missing, damaged or of another version; the message says what to do.
            MissingExtraError: ONNX Runtime is not installed.
        """
        return cls(Artifact.load(folder), threads=threads)

    @property
    def default_quota_kind(self) -> QuotaKind:
        """`launch_gate` if the artifact learned it, else `gpu_time`, which follows from D and H."""
        return self._engine.default_quota_kind

    def network(
        self, source: str | Path | OperatorGraph, *, calibration: str | Path | None = None
    ) -> NetworkPredictor:
        """Answers for one network.

        A file is read each time, which takes some tenths of a second: keep what is returned. A graph is
        encoded once.

        Args:
            source: an ONNX file, which may lack its weights, or its operator graph.
            calibration: a file of `NetworkPredictor.save_calibration` with points of this network.

        Raises:
            GraphError: no operator graph can be made of the file, or the graph is empty.
            CalibrationError: the calibration has no points of this network, or is for another artifact.
        """
        graph = source if isinstance(source, OperatorGraph) else OperatorGraph.from_onnx(source)
        network = NetworkPredictor.opened(self._engine, graph)
        if calibration is None:
            return network
        return network.calibrated(read_points(calibration, self.card, graph.graph_hash, network.name))

    def known_network(self, name: str) -> NetworkPredictor:
        """Answers for a network of the training by its name in the card, without its file.

        Raises:
            ConfigError: the card has no such name; the message has the nearest.
        """
        names = [network.name for network in self.card.networks]
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3)
            near = f" (near: {', '.join(close)})" if close else ""
            raise ConfigError(
                f"{self._engine.artifact.folder}: its training had no network {name!r}{near}:"
                " give an ONNX file to Predictor.network"
            )
        return NetworkPredictor.named(self._engine, names.index(name))

    def calibration_points(self, count: int) -> tuple[ResourceConfig, ...]:
        """The first `count` configurations of the card's list: a good choice of so many to measure.

        Raises:
            CalibrationError: the list is shorter.
        """
        listed = self.card.points
        if not 0 <= count <= len(listed):
            raise CalibrationError(
                f"{self._engine.artifact.folder}: lists {len(listed)} points to measure, not {count}"
            )
        return listed[:count]
