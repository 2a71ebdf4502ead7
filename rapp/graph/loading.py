"""Read an ONNX file without its weights.

Only the structure is parsed. External data are left where they are, apart from small integer tensors that
shapes may depend on, and are never read outside the folder of the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from rapp.errors import GraphError

# ConvTranspose, BatchNormalization and broadcasting mean something else in older operator sets.
OLDEST_OPSET = 7

# Tensors up to this many elements are read and folded, since shapes may depend on them; larger ones are
# weights.
LARGEST_FOLDED = 1024

MAIN_DOMAINS = ("", "ai.onnx")


def load_model(source: str | Path | ModelProto) -> tuple[ModelProto, str, Path | None]:
    """Parse `source`; the weights in external files stay unread, local functions are inlined.

    Returns:
        The model (a copy if `source` is one and has functions), its name for messages, and the folder
        of the file (None for a model in memory).

    Raises:
        GraphError: no such file, not an ONNX model, truncated, too old, or external data outside the folder.
    """
    if isinstance(source, ModelProto):
        model, name, folder = source, source.graph.name or "<model in memory>", None
    else:
        path = Path(source)
        name, folder = str(path), path.parent
        try:
            model = onnx.load(path, load_external_data=False)
        except OSError as error:
            raise GraphError(path, error.strerror or str(error)) from error
        except Exception as error:  # protobuf raises DecodeError, or ValueError for its text formats
            raise GraphError(path, f"is not an ONNX file, or is truncated ({_first_line(error)})") from error
    _check(model, name)
    if folder is not None:
        for tensor in model.graph.initializer:
            if is_external(tensor):
                external_path(tensor, folder, name)
    if model.functions:
        model = _inline(model, name)
    return model, name, folder


def _check(model: ModelProto, name: str) -> None:
    if not model.graph.node and not model.graph.output:
        raise GraphError(name, "holds no network: it is not an ONNX file, or is truncated")
    if not model.opset_import:
        raise GraphError(name, "names no operator set (opset_import is empty)")
    opset = opset_of(model)
    if opset and opset < OLDEST_OPSET:
        raise GraphError(
            name,
            f"has opset {opset}; {OLDEST_OPSET} is the oldest: onnx.version_converter converts it",
        )


def _inline(model: ModelProto, name: str) -> ModelProto:
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises RuntimeError and its own C++ errors
        raise GraphError(name, f"its functions cannot be inlined ({_first_line(error)})") from error


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operator set that the model uses; 0 if it uses none of it."""
    return max((entry.version for entry in model.opset_import if entry.domain in MAIN_DOMAINS), default=0)


def is_external(tensor: TensorProto) -> bool:
    """True if the data lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def has_data(tensor: TensorProto) -> bool:
    """False if the file declares the tensor without its values: a structure-only file."""
    if is_external(tensor) or 0 in tensor.dims:
        return True
    return tensor.HasField("raw_data") or any(
        (
            tensor.float_data,
            tensor.int32_data,
            tensor.int64_data,
            tensor.double_data,
            tensor.uint64_data,
            tensor.string_data,
        )
    )


def external_path(tensor: TensorProto, folder: Path, name: str) -> Path:
    """The file that holds the tensor's data.

    Raises:
        GraphError: the location leads out of `folder` (an absolute path, `..`, or a symbolic link).
    """
    fields = {entry.key: entry.value for entry in tensor.external_data}
    root = folder.resolve()
    path = (root / fields.get("location", "")).resolve()
    if not fields.get("location") or not path.is_relative_to(root) or path == root:
        raise GraphError(
            name,
            f"external data at '{fields.get('location', '')}' lie outside its folder",
            where=f"initializer {tensor.name}",
        )
    return Path(path)


def external_files(path: Path) -> tuple[str, ...]:
    """The files that hold external data of the network in `path`, relative to its folder, sorted.

    Raises:
        GraphError: it is no ONNX file, or its data lie outside the folder.
    """
    model, _, _ = load_model(path)
    root = path.parent.resolve()
    return tuple(
        sorted(
            {
                str(external_path(tensor, root, str(path)).relative_to(root))
                for tensor in model.graph.initializer
                if is_external(tensor)
            }
        )
    )


def tensor_value(tensor: TensorProto, folder: Path | None, name: str) -> NDArray[np.generic] | None:
    """The value of a tensor, or None if the file does not have it.

    Raises:
        GraphError: the data are outside the folder, missing, or do not fit dims and data type.
    """
    if not has_data(tensor) or tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return None
    try:
        if not is_external(tensor):
            return np.asarray(onnx.numpy_helper.to_array(tensor))
        if folder is None:
            return None
        copy = TensorProto(dims=tensor.dims, data_type=tensor.data_type)
        copy.raw_data = _read_external(tensor, folder, name)
        return np.asarray(onnx.numpy_helper.to_array(copy))
    except OSError as error:
        raise GraphError(
            name, f"external data: {error.strerror}", where=f"initializer {tensor.name}"
        ) from error
    except (ValueError, TypeError) as error:
        raise GraphError(name, _first_line(error), where=f"initializer {tensor.name}") from error


def _read_external(tensor: TensorProto, folder: Path, name: str) -> bytes:
    fields = {entry.key: entry.value for entry in tensor.external_data}
    with external_path(tensor, folder, name).open("rb") as file:
        file.seek(int(fields.get("offset") or 0))
        return file.read(int(fields["length"])) if fields.get("length") else file.read()


def load_weights(model: ModelProto, folder: Path | None, name: str) -> None:
    """Pull the external data of all initializers into the model itself.

    Raises:
        GraphError: as `tensor_value`.
    """
    for tensor in model.graph.initializer:
        if not is_external(tensor):
            continue
        if folder is None:
            raise GraphError(name, "its weights are external data, whose folder is not known: pass the path")
        try:
            data = _read_external(tensor, folder, name)
        except (OSError, ValueError) as error:
            raise GraphError(name, f"external data: {error}", where=f"initializer {tensor.name}") from error
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
