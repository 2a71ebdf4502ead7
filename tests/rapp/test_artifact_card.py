"""The card of an artifact: interval factors, described tensors, and the committed schemas."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from artifact_parts import TinyArtifact

import rapp
from rapp.artifact import Artifact
from rapp.card import INPUTS_OUTPUTS, Card
from rapp.graph.features import WIDTH

SCHEMAS = Path(rapp.__file__).parent / "schemas"


class TestCard:
    @pytest.mark.parametrize(
        ("points", "expected"),
        [(0, 2.0), (3, 1.8), (1, 1.9), (64, 1.5), (10_000, 1.5)],
    )
    def test_the_interval_factor_is_linear_in_the_log_of_points(
        self, tiny_artifact: TinyArtifact, points: int, expected: float
    ) -> None:
        # log(1 + 1) is half of log(1 + 3).
        assert Artifact.load(tiny_artifact.folder).card.interval_factor(points) == pytest.approx(expected)

    def test_it_describes_the_tensors_that_are_there(self, tiny_artifact: TinyArtifact) -> None:
        onnx = pytest.importorskip("onnx")
        artifact = Artifact.load(tiny_artifact.folder)
        b, s, q = artifact.knots.shape
        sizes = {"batch_knot": b, "sm_knot": s, "quota_knot": q, "end": 2, "cost": 4, "feature": WIDTH}
        for name in ("encoder.onnx", "decoder.onnx"):
            graph = onnx.load_from_string((tiny_artifact.folder / name).read_bytes()).graph
            described = artifact.card.inputs_outputs[name]
            for there, tensors in ((graph.input, described.inputs), (graph.output, described.outputs)):
                assert [value.name for value in there] == [tensor.name for tensor in tensors]
                for value, tensor in zip(there, tensors, strict=True):
                    shape = value.type.tensor_type.shape.dim
                    assert len(shape) == len(tensor.axes), tensor.name
                    for size, axis in zip(shape, tensor.axes, strict=True):
                        assert size.dim_value == sizes.get(axis, 0), f"{tensor.name} {axis}"
                    elem = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                    assert elem == np.dtype(tensor.dtype)

    def test_the_description_is_whole(self) -> None:
        for model in INPUTS_OUTPUTS.values():
            for tensor in (*model.inputs, *model.outputs):
                assert tensor.unit
                assert tensor.meaning

    def test_its_schema_is_the_committed_one(self) -> None:
        check_schema("card", Card)

    def test_that_of_calibrations_is_too(self) -> None:
        from rapp.calibrate import Calibration

        check_schema("calibration", Calibration)


def check_schema(name: str, model: Any) -> None:
    """A change of the format must be seen in a diff: replace the file by what the message holds."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    expected = json.dumps(head | model.model_json_schema(mode="serialization"), indent=2) + "\n"
    assert (SCHEMAS / f"{name}.schema.json").read_text() == expected, expected
