"""Carry a fixed-batch network to other batches, guessing where its constants leave the batch's place open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx import ModelProto

from rapp.graph.batching import BatchPlan
from rapp.graph.mending import Choice, MendingTracer
from rapp.graph.values import BatchVaries, Trace

# How often the walk starts anew with another guess at an ambiguous Reshape. Equal Reshapes share their guess,
# so real networks need few: 2 for ViT's attention.
MOST_TRIES = 64


def trace_fixed(
    model: ModelProto, name: str, folder: Path | None, plan: BatchPlan, dims: Mapping[str, int]
) -> Trace:
    """Walk through a fixed-batch network; guess, and guess again, where a Reshape leaves open where the batch
    goes.

    Raises:
        BatchVaries: no guess leads to outputs that all grow with the batch; the message is that of the first
            guess.
        GraphError: the network contradicts itself at its own batch.
    """
    first: BatchVaries | None = None
    for reading in plan.readings():
        choices: dict[Choice, int] = {}
        for _ in range(MOST_TRIES):
            tracer = MendingTracer(model, name, folder, reading, dims, choices)
            try:
                trace = tracer.run()
                for output in trace.outputs:
                    value = trace.values.get(output)
                    if value is not None and not value.static and value.place is None:
                        raise BatchVaries(f"output '{output}' does not grow with the batch")
                return trace
            except BatchVaries as error:
                first = first or error
                if not _next_choice(tracer, choices):
                    break
    assert first is not None
    raise first


def _next_choice(tracer: MendingTracer, choices: dict[Choice, int]) -> bool:
    """Change the latest guess that has candidates left; False if there is none."""
    for key, count in reversed(list(tracer.met.items())):
        if choices[key] + 1 < count:
            choices[key] += 1
            return True
        del choices[key]
    return False
