"""An exported predictor as a source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rapp.errors import ConfigError
from rapp.latency_model import LatencyModel
from rapp.types import QuotaKind
from scaler.errors import NoLatencySourceError
from scaler.functions import FunctionSpec
from scaler.sources.base import times_of
from scaler.sources.service_times import ServiceTimes

if TYPE_CHECKING:
    from rapp.network_predictor import NetworkPredictor
    from rapp.predictor import Predictor


class PredictorSource:
    """What an artifact predicts, calibrated where a file has measured points of the network.

    Args:
        predictor: the artifact.
        name: what to call it: its folder.
        calibration: a file of `rapp calibrate`; its networks are calibrated, others answer from their graph.
        quota_kind: what the quotas that are planned with limit.
    """

    def __init__(
        self,
        predictor: Predictor,
        name: str,
        calibration: Path | None = None,
        quota_kind: QuotaKind = QuotaKind.GPU_TIME,
    ) -> None:
        self._predictor, self._name = predictor, name
        self._calibration, self._quota_kind = calibration, quota_kind
        self._networks: dict[str, NetworkPredictor] = {}

    @classmethod
    def load(
        cls,
        folder: str | Path,
        calibration: str | Path | None = None,
        quota_kind: QuotaKind = QuotaKind.GPU_TIME,
    ) -> PredictorSource:
        """Load and verify an artifact.

        Raises:
            ArtifactError: it is damaged or of another version.
            CalibrationError: the calibration is none, or for another artifact.
            MissingExtraError: ONNX Runtime is not installed.
        """
        from rapp.calibrate import read_calibration
        from rapp.predictor import Predictor

        predictor = Predictor.load(folder)
        if calibration is not None:
            read_calibration(calibration, predictor.card)
        return cls(predictor, str(folder), None if calibration is None else Path(calibration), quota_kind)

    @property
    def name(self) -> str:
        """The artifact's folder, and the calibration if there is one."""
        return f"{self._name} + {self._calibration}" if self._calibration else self._name

    def model(self, function: FunctionSpec) -> LatencyModel:
        """The predictor's answers for the function's network.

        Raises:
            NoLatencySourceError: a network by name that the artifact was not trained on.
            GraphError: the ONNX file cannot be read.
        """
        return self._network(function)

    def times(self, function: FunctionSpec) -> ServiceTimes:
        """The same as tables."""
        return times_of(self._network(function), self.name, function, self._quota_kind)

    def _network(self, function: FunctionSpec) -> NetworkPredictor:
        if function.network not in self._networks:
            self._networks[function.network] = self._opened(function)
        return self._networks[function.network]

    def _opened(self, function: FunctionSpec) -> NetworkPredictor:
        file = function.network_file
        if file is None:
            try:
                return self._predictor.known_network(function.network)
            except ConfigError as error:
                raise NoLatencySourceError(f"function {function.name}: {error}") from error
        network = self._predictor.network(file)
        if self._calibration is None:
            return network
        from rapp.calibrate import read_calibration, read_points

        card = self._predictor.card
        if network.graph_hash not in read_calibration(self._calibration, card).networks:
            return network
        return network.calibrated(read_points(self._calibration, card, network.graph_hash, network.name))
