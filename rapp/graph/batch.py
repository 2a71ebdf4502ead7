"""Rewrite a network to another batch.

A file exported at batch 1 holds that 1 in more places than its input: in the targets of Reshapes, in
constants that were expanded to it. `with_batch` follows the batch through the network (`mending`), replaces
what holds it, and checks the result by walking through it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rapp.errors import BatchRewriteError

if TYPE_CHECKING:
    from onnx import ModelProto

SYMBOL = "N"


def with_batch(
    source: str | Path | ModelProto, batch: int | None, *, dims: Mapping[str, int] | None = None
) -> ModelProto:
    """A copy of a network for another batch; run on n stacked inputs it answers as n runs of the original.

    Args:
        source: the file (external data are pulled in), or a model in memory, which stays as it is.
        batch: the new batch, >= 1; None: leave it open, as a first dimension called "N".
        dims: numbers for open dimensions other than the batch, by their symbol.

    Returns:
        The model, weights included if the file has them.

    Raises:
        BatchRewriteError: the network cannot be carried to another batch; the message names the operator and
            why.
        GraphError: as `OperatorGraph.from_onnx`.
    """
    from rapp.graph.batching import plan_batches
    from rapp.graph.carrying import trace_fixed
    from rapp.graph.loading import load_model, load_weights
    from rapp.graph.rewriting import Rewriter
    from rapp.graph.tracing import Tracer
    from rapp.graph.values import BatchVaries

    if batch is not None and batch < 1:
        raise BatchRewriteError(str(source)[:200], f"batch {batch}: it must be 1 or more")
    model, name, folder = load_model(source)
    if folder is None:
        copy = type(model)()
        copy.CopyFrom(model)
        model = copy
    else:
        load_weights(model, folder, name)
    plan = plan_batches(model.graph, name, dims or {})
    if batch == plan.fixed:
        return model
    if len(plan.batches) == 1:
        raise BatchRewriteError(name, "none of its inputs has a batch")
    try:
        if plan.fixed is None:
            trace = Tracer(model, name, folder, plan, dims or {}).run()
        else:
            trace = trace_fixed(model, name, folder, plan, dims or {})
    except BatchVaries as error:
        raise BatchRewriteError(name, str(error)) from error
    Rewriter(model, name, trace, batch).apply()
    _verify(model, name, batch, dims or {})
    return model


def _verify(model: ModelProto, name: str, batch: int | None, dims: Mapping[str, int]) -> None:
    """Walk through the rewritten network: every output must have the new batch as its first dimension."""
    from rapp.errors import GraphError
    from rapp.graph.batching import plan_batches
    from rapp.graph.tracing import Tracer
    from rapp.graph.values import BatchVaries

    plan = plan_batches(model.graph, name, dims)
    if plan.fixed is not None:
        plan = plan.at_file_batch()
    try:
        trace = Tracer(model, name, None, plan, dims).run()
    except (BatchVaries, GraphError) as error:
        raise BatchRewriteError(
            name, f"after the rewriting its shapes contradict each other: {error}"
        ) from error
    for output in trace.outputs:
        for point, expected in enumerate(plan.batches):
            shape = trace.values[output].shape(point)
            if not shape or shape[0] != (expected if batch is None else batch):
                found = "no known shape" if shape is None else f"shape {list(shape)}"
                raise BatchRewriteError(
                    name,
                    f"has {found} at batch {expected}: the batch is not its first dimension",
                    where=f"output {output}",
                )
