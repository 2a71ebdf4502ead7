"""What every test of `with_batch` asks: n samples at once are n runs of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from rapp.graph import with_batch

node = helper.make_node
Make = Callable[..., ModelProto]
Run = Callable[..., list[list[Any]]]


def assert_equivalent(
    model: ModelProto, run: Run, batch: int, rewritten_to: tuple[int | None, ...] = ()
) -> None:
    """The network at n times its own batch, and with the batch left open, against n runs of its own."""
    constants = {tensor.name for tensor in model.graph.initializer}
    (value,) = [value for value in model.graph.input if value.name not in constants]
    own, *sample = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch * own, *sample)).astype(np.float32)
    # White noise looks alike to a deep network, whatever its seed: give each sample colours of its own.
    x += 2 * rng.standard_normal((batch * own, *sample[:1], *[1] * len(sample[1:]))).astype(np.float32)
    single = run(model, *({value.name: x[i * own : (i + 1) * own]} for i in range(batch)))
    wanted = [np.concatenate(parts) for parts in zip(*single, strict=True)]
    spread = np.abs(wanted[0][0] - wanted[0][-1]).max() / np.abs(wanted[0]).max()
    assert spread > 1e-3, "all inputs get one answer: the comparison could not fail"
    for new in rewritten_to or (batch * own, None):
        (made,) = run(with_batch(model, new), {value.name: x})
        for found, expected in zip(made, wanted, strict=True):
            assert found.shape == expected.shape
            np.testing.assert_allclose(
                found, expected, rtol=1e-3, atol=spread * 1e-2 * np.abs(expected).max()
            )


W = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
