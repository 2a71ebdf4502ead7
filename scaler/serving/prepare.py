"""Make a network ready to be served, once, in a process of its own: `python -m scaler.serving.prepare`.

Its batch is opened, so that one session runs every batch, and it is run once, so that the shapes of its
outputs are known before there is any worker. The gateway itself never loads onnx or ONNX Runtime.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from rapp.errors import BatchRewriteError, DataError, RappError
from scaler.serving.network import ServedNetwork, lay_out

_LARGEST_MESSAGE_BYTES = 2**31 - 1
"""Of protobuf; a larger network is kept with its weights in a file beside it."""


def prepare(source: Path, folder: Path, max_batch: int) -> ServedNetwork:
    """Write the network with an open batch into `folder`, and find out its tensors.

    Args:
        source: the ONNX file. folder: an existing folder of its own. max_batch: largest batch to serve.

    Raises:
        BatchRewriteError: it has no batch, and `max_batch` is above 1.
        GraphError, DataError: it cannot be read or run.
        RappError: an input is not of numbers.
    """
    file, batched = folder / "network.onnx", True
    try:
        _write_open(source, file)
    except BatchRewriteError as error:
        if max_batch > 1:
            raise BatchRewriteError(
                str(source), f"cannot be batched: {error.reason}: set max_batch: 1", where=error.where
            ) from error
        file, batched = source.resolve(), False
    return _described(file, batched)


def _write_open(source: Path, file: Path) -> None:
    import onnx

    from rapp.graph import with_batch

    model = with_batch(source, None)
    external = model.ByteSize() > _LARGEST_MESSAGE_BYTES
    onnx.save_model(model, file, save_as_external_data=external)


def _described(file: Path, batched: bool) -> ServedNetwork:
    """Run the network at batch 1, and 2 if it is batched, and note what comes out."""
    from rapp.runtime import cpu_session
    from rapp.runtime.inputs import seeded_inputs, session_inputs

    session = cpu_session(file)
    first = seeded_inputs(session, 1)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, first), strict=True))
    if batched:
        for name, value in zip(names, session.run(None, seeded_inputs(session, 2)), strict=True):
            if value.shape != (2, *outputs[name].shape[1:]):
                shape = list(value.shape)
                raise BatchRewriteError(str(file), f"output {name} has shape {shape} at batch 2")
    skip = 1 if batched else 0
    inputs, placed, slot_bytes = lay_out(
        [(spec.name, spec.dtype, first[spec.name].shape[skip:]) for spec in session_inputs(session)],
        [(name, _dtype(file, name, value), value.shape[skip:]) for name, value in outputs.items()],
    )
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return ServedNetwork(file, batched, inputs, placed, slot_bytes, round(peak_mib, 1))


def _dtype(file: Path, name: str, value: Any) -> str:
    kind = str(getattr(value, "dtype", "object"))
    if kind == "object":
        raise DataError(file, "is no tensor of numbers: it cannot be served", where=f"output {name}")
    return kind


def main() -> None:
    """Prepare what the arguments name, and print it as JSON, or the error."""
    source, folder, max_batch = sys.argv[1:4]
    try:
        answer = prepare(Path(source), Path(folder), int(max_batch)).to_json()
    except RappError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
