"""ONNX's own examples of each operator, some 1,800 networks of one operator with inputs and outputs.

They come with the onnx package, which generates them.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from onnx.backend.test.case.node import collect_testcases

from rapp.errors import BatchRewriteError, GraphError, UnknownShapeError
from rapp.graph import OperatorGraph, with_batch


@cache
def examples() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(collect_testcases(None))


@pytest.mark.parametrize("expanded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_operator_is_read_or_refused_and_never_crashes(expanded: bool) -> None:
    """Shapes are those of the example's outputs; a graph survives JSON."""
    outcomes: Counter[str] = Counter()
    # Half of the examples are operators written out as the functions that define them.
    chosen = [example for example in examples() if ("_expanded" in example.name) == expanded]
    for example in chosen:
        try:
            graph = OperatorGraph.from_onnx(example.model)
        except UnknownShapeError:
            outcomes["shape hangs on data"] += 1
            continue
        except GraphError as error:
            assert "has opset" in str(error), example.name
            outcomes["too old"] += 1
            continue
        outcomes["read"] += 1
        assert OperatorGraph.from_json(graph.to_json()) == graph, example.name
        for spec, expected in zip(graph.outputs, example.data_sets[0][1], strict=True):
            if isinstance(expected, np.ndarray) and spec.dtype:
                batch = graph.fixed_batch or 1
                assert tuple(dim(batch) for dim in spec.shape) == expected.shape, example.name
    assert outcomes["read"] > 0.85 * len(chosen)


@pytest.mark.slow
def test_what_is_rewritten_answers_like_single_runs(run: Callable[..., list[list[Any]]]) -> None:
    """What `with_batch` does not refuse must be right: three samples at once, against one by one."""
    rng, outcomes = np.random.default_rng(0), Counter[str]()
    for example in examples():
        model = example.model
        try:
            opened = with_batch(model, None)
        except (BatchRewriteError, GraphError):
            outcomes["refused"] += 1
            continue
        inputs = example.data_sets[0][0]
        if not all(isinstance(array, np.ndarray) for array in inputs):
            continue
        names = [value.name for value in model.graph.input]
        grows = [
            bool(value.type.tensor_type.shape.dim) and value.type.tensor_type.shape.dim[0].dim_param == "N"
            for value in opened.graph.input
        ]
        if not any(grows):
            continue
        feeds = [
            {
                name: (array + 0.1 * rng.standard_normal(array.shape)).astype(array.dtype)
                if grow and array.dtype.kind == "f"
                else array
                for name, array, grow in zip(names, inputs, grows, strict=True)
            }
            for _ in range(3)
        ]
        try:
            model.ir_version = min(model.ir_version, 10)
            opened.ir_version = model.ir_version
            single = run(model, *feeds)
        except Exception:
            outcomes["not supported by the runtime"] += 1
            continue
        together = {
            name: np.concatenate([feed[name] for feed in feeds]) if grow else feeds[0][name]
            for name, grow in zip(names, grows, strict=True)
        }
        (found,) = run(opened, together)
        for parts, whole in zip(zip(*single, strict=True), found, strict=True):
            wanted = np.concatenate(parts)
            assert whole.shape == wanted.shape, example.name
            if wanted.dtype.kind in "fiub":
                close = np.allclose(
                    wanted.astype(float), whole.astype(float), rtol=1e-2, atol=1e-3, equal_nan=True
                )
                assert close, example.name
        outcomes["equal"] += 1
    assert outcomes["equal"] > 500, outcomes
