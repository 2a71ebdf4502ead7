"""The two ONNX files of an artifact as functions; threads may share them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapp.artifact import Artifact
from rapp.card import INPUTS_OUTPUTS
from rapp.errors import ArtifactError, DataError, GraphError
from rapp.graph.features import GraphFeatures
from rapp.inference.posterior import Prior
from rapp.inference.tables import Tables
from rapp.runtime import cpu_session
from rapp.types import FloatArray


class Encoder:
    """`encoder.onnx`: features of a graph -> prior of its curves."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._session = _session(artifact, "encoder.onnx", artifact.encoder, threads)
        self._shape = artifact.knots.shape

    def prior(self, features: GraphFeatures, name: str) -> Prior:
        """What the graph alone says; `name` is for the message.

        Raises:
            GraphError: the graph has no operator, or one so large that its times are no numbers.
        """
        if not len(features.operators):
            raise GraphError(name, "has no operator that runs on a device: there is nothing to predict")
        feed = {"operators": features.operators, "costs": features.costs, "edges": features.edges}
        device, host = (
            np.asarray(a, np.float64) for a in self._session.run(["log_device", "log_host"], feed)
        )
        if not (np.isfinite(device).all() and np.isfinite(host).all()):
            raise GraphError(name, "the artifact's encoder has no finite answer for it")
        b, s, q = self._shape
        return Prior(device.reshape(b, s), host.reshape(q))


class Decoder:
    """`decoder.onnx`: tables and N configurations -> mean, low, high, device and host time, ms."""

    OUTPUTS = ("mean_ms", "low_ms", "high_ms", "device_ms", "host_ms")

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._session = _session(artifact, "decoder.onnx", artifact.decoder, threads)

    def run(
        self,
        tables: Tables,
        batch: FloatArray,
        sm_pct: FloatArray,
        quota_pct: FloatArray,
        gpu_time: bool | NDArray[np.bool_],
        credit_ms: float,
        interval_factor: float,
    ) -> dict[str, FloatArray]:
        """Answers by name of the output, each (N,).

        Args:
            tables: of the network; its deviation includes the noise of a measurement.
            batch, sm_pct, quota_pct: (N,) configurations.
            gpu_time: whether the quota limits device time, for all or (N,); it gates launches otherwise.
            credit_ms: `rapp.inference.law.credit_ms`.
            interval_factor: half the interval's width in standard deviations.
        """
        count = len(batch)
        if not count:
            return {name: np.zeros(0) for name in self.OUTPUTS}
        feed = {
            "log_latency": tables.log_latency,
            "log_device": tables.log_device,
            "log_host": tables.log_host,
            "deviation": tables.deviation,
            "batch": batch.astype(np.float32),
            "sm_pct": sm_pct.astype(np.float32),
            "quota_pct": quota_pct.astype(np.float32),
            "gpu_time": np.broadcast_to(np.asarray(gpu_time, np.float32), (count,)).copy(),
            "credit_ms": np.asarray(credit_ms, np.float32),
            "interval_factor": np.asarray(interval_factor, np.float32),
        }
        answers = self._session.run(list(self.OUTPUTS), feed)
        return {n: np.asarray(a, np.float64) for n, a in zip(self.OUTPUTS, answers, strict=True)}


def _session(artifact: Artifact, file: str, model: bytes, threads: int) -> Any:
    """A session whose inputs and outputs have the names of this format."""
    path, expected = artifact.folder / file, INPUTS_OUTPUTS[file]
    try:
        session = cpu_session(model, threads=threads)
    except DataError as error:
        raise ArtifactError(path, error.reason) from error
    for kind, found, wanted in (
        ("inputs", session.get_inputs(), expected.inputs),
        ("outputs", session.get_outputs(), expected.outputs),
    ):
        differing = {tensor.name for tensor in wanted} ^ {tensor.name for tensor in found}
        if differing:
            names = ", ".join(sorted(differing))
            raise ArtifactError(path, f"its {kind} are not those of the format ({names}): export it again")
    return session
