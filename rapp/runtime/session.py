"""ONNX Runtime sessions, and the import of onnxruntime itself."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from rapp.errors import ConfigError, DataError, MissingExtraError, RappError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

_ERRORS_ONLY = 3
"""ONNX Runtime's log severity (0 verbose ... 4 fatal); warnings at load time are not for our users."""


def import_onnxruntime() -> ModuleType:
    """The onnxruntime module, from whichever of the extras `cpu` and `gpu` is installed.

    Raises:
        MissingExtraError: neither is installed.
        RappError: what is installed does not load, or lacks parts (the two extras overwrite each other).
    """
    try:
        module = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise _broken(str(error)) from error
        raise MissingExtraError("ONNX Runtime", "cpu", "gpu") from error
    except ImportError as error:  # a shared library that does not load
        raise _broken(str(error)) from error
    # Uninstalling one of two distributions that share the folder leaves an empty namespace behind.
    if not hasattr(module, "InferenceSession"):
        raise _broken("the module has no InferenceSession")
    return module


def cpu_session(model: bytes | str | Path, *, threads: int = 1) -> InferenceSession:
    """Load `model` for the CPU, so that repeated runs give the same numbers and leave other cores alone.

    Args:
        model: an ONNX file, or the content of one.
        threads: cores one run may use, >= 1. A predictor is small: more threads cost more than they bring.

    Raises:
        ConfigError: `threads` below 1.
        DataError: the file is absent, or ONNX Runtime cannot run what is in it.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if threads < 1:
        raise ConfigError(f"threads is {threads}: it must be 1 or more")
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise DataError(model, "a folder, not a file" if Path(model).is_dir() else "no such file")
    runtime = import_onnxruntime()
    source = model if isinstance(model, bytes) else str(model)
    try:
        return runtime.InferenceSession(
            source, cpu_options(runtime, threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
        where = "a model in memory" if isinstance(model, bytes) else model
        reason = " ".join(str(error).split())
        raise DataError(where, f"ONNX Runtime cannot load it: {reason}") from error


def cpu_options(runtime: ModuleType, threads: int) -> SessionOptions:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    # A spinning thread pool burns cores between two questions of a scheduler.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _broken(reason: str) -> RappError:
    return RappError(f"ONNX Runtime is installed but does not load ({reason}): `rapp doctor` says what to do")
