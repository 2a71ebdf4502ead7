"""ONNX Runtime on a GPU: sessions that run wholly on the CUDA provider or not at all, timed from outside.

    session = cuda_session("resnet50.onnx", stream=stream.handle)
    network = BoundNetwork(session, seeded_inputs(session, 4))
    network.launch()                         # returns when everything is launched
    stream.synchronize()

ONNX Runtime by itself falls back to the CPU without a word, for the whole network where the provider does
not load, and for single operators. Both are errors here. Inputs and outputs stay on the device.

Options are those of onnxruntime.ai, "CUDA Execution Provider", and of its headers
onnxruntime_session_options_config_keys.h and onnxruntime_run_options_config_keys.h. Tested against an ONNX
Runtime that claims the provider and runs on the CPU. The provider of onnxruntime-gpu 1.31 takes these options
as they are, up to the point where it needs a GPU; none of this has ever run on a physical one.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rapp.errors import DataError, RappError
from rapp.runtime.session import import_onnxruntime

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PROVIDER = "CUDAExecutionProvider"

_ERRORS_ONLY = 3
_NO_CPU_NODES = "session.disable_cpu_ep_fallback"
_RECORD_NODES = "session.record_ep_graph_assignment_info"
_ASYNCHRONOUS = "disable_synchronize_execution_providers"

_OUT_OF_MEMORY = re.compile(
    r"failed to allocate memory|out of memory|memoryallocation|alloc_failed"
    r"|available memory of \d+ is smaller than requested",
    re.IGNORECASE,
)
"""In messages of the arena (bfc_arena.cc), the CUDA runtime, cuBLAS and cuDNN."""
_ON_CPU = "assigned to the default CPU EP"
_UNSUPPORTED = re.compile(r"NOT_IMPLEMENTED|could not find an implementation|no op registered", re.IGNORECASE)


class CudaSessionError(RappError):
    """A network cannot be run on the GPU."""


class CudaProviderError(CudaSessionError):
    """ONNX Runtime has no CUDA provider here, or it does not load."""


class UnsupportedOperatorError(CudaSessionError):
    """The CUDA provider lacks an operator of the network."""


class OutOfDeviceMemoryError(CudaSessionError):
    """The GPU's memory is too small; the session's process should end, for its arena keeps what it has."""


def provider_options(stream: int | None = None, memory_limit_mib: float | None = None) -> dict[str, str]:
    """Options of the CUDA provider for measuring: what would be tuned at run time is fixed.

    Args:
        stream: handle of the CUDA stream to run on; None: one of ONNX Runtime's.
        memory_limit_mib: most that its arena may take, MiB; None: all there is.
    """
    options = {
        # In a process that sees one GPU alone.
        "device_id": "0",
        # Memory grows by what is needed and not by powers of two, so that its peak can be told.
        "arena_extend_strategy": "kSameAsRequested",
        # The default tries all algorithms at the first run of a shape, under whatever disturbs that run.
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "do_copy_in_default_stream": "1",
        "use_tf32": "1",
        "prefer_nhwc": "0",
        # A graph is one launch: the host time would not be that of a server without graphs.
        "enable_cuda_graph": "0",
    }
    if stream is not None:
        options["user_compute_stream"] = str(stream)
    if memory_limit_mib is not None:
        options["gpu_mem_limit"] = str(int(memory_limit_mib * 2**20))
    return options


def cuda_session(
    model: bytes | str | Path,
    *,
    stream: int | None = None,
    memory_limit_mib: float | None = None,
) -> InferenceSession:
    """Load a network for the GPU that this process sees, or the first of them.

    Args:
        model: an ONNX file, or the content of one. Where its batch is fixed (`rapp.graph.with_batch`), ONNX
            Runtime computes shapes when it loads, and leaves none of that to the CPU.
        stream, memory_limit_mib: as in `provider_options`.

    Raises:
        CudaProviderError: there is no CUDA provider, or it does not load.
        UnsupportedOperatorError: an operator would run on the CPU, or on nothing.
        OutOfDeviceMemoryError: its weights do not fit.
        CudaSessionError: it fails otherwise.
        DataError: there is no such file.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise DataError(model, "no such file")
    runtime = import_onnxruntime()
    _check_provider(runtime)
    source = model if isinstance(model, bytes) else str(model)
    options = provider_options(stream, memory_limit_mib)
    try:
        session = _session(runtime, source, options, {_NO_CPU_NODES: "1"})
    except Exception as error:
        if not _is_runtimes(error):
            raise
        if _ON_CPU in str(error):
            raise _what_falls_back(runtime, source, options) from error
        raise _classified(error) from error
    if session.get_providers()[:1] != [PROVIDER]:
        raise _not_loaded()
    return session


class BoundNetwork:
    """A session with its inputs and outputs on the device.

    Args:
        inputs: an array for every input.

    Raises:
        CudaSessionError: as `cuda_session`, when the inputs are copied.
    """

    def __init__(self, session: InferenceSession, inputs: Mapping[str, NDArray[Any]]) -> None:
        runtime = import_onnxruntime()
        self._session, self._binding = session, session.io_binding()
        with _translated():
            for name, value in inputs.items():
                on_device = runtime.OrtValue.ortvalue_from_numpy(value, "cuda", 0)
                self._binding.bind_ortvalue_input(name, on_device)
            for output in session.get_outputs():
                self._binding.bind_output(output.name, "cuda")
            self._binding.synchronize_inputs()
        self._options = runtime.RunOptions()
        # Without it a run returns when the device has finished, and the host's share could not be told.
        self._options.add_run_config_entry(_ASYNCHRONOUS, "1")

    def launch(self) -> None:
        """Launch one run, and return without waiting for the device.

        Raises:
            OutOfDeviceMemoryError: memory for the outputs, or in between, was not to be had.
            CudaSessionError: it fails otherwise.
        """
        with _translated():
            self._session.run_with_iobinding(self._binding, self._options)

    def outputs(self) -> list[NDArray[np.generic]]:
        """Outputs of the last run, which must have ended, on the host."""
        with _translated():
            return [np.asarray(value) for value in self._binding.copy_outputs_to_cpu()]


def _check_provider(runtime: ModuleType) -> None:
    available = runtime.get_available_providers()
    if PROVIDER not in available:
        found = ", ".join(name.removesuffix("ExecutionProvider") for name in available)
        action = "pip uninstall -y onnxruntime && pip install 'rapp[gpu]'"
        raise CudaProviderError(f"this ONNX Runtime has no CUDA provider, only {found}: {action}")
    # Finds the libraries of CUDA and cuDNN where pip has put them; it prints what it does not find, and the
    # provider then says the same.
    preload = getattr(runtime, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def _session(
    runtime: ModuleType, source: bytes | str, options: Mapping[str, str], entries: Mapping[str, str]
) -> InferenceSession:
    settings = runtime.SessionOptions()
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = _ERRORS_ONLY
    # The host only launches; spinning threads would take a core from it.
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    for name, value in entries.items():
        settings.add_session_config_entry(name, value)
    providers = [(PROVIDER, dict(options))]
    return runtime.InferenceSession(source, settings, providers=providers, enable_fallback=0)


def _what_falls_back(
    runtime: ModuleType, source: bytes | str, options: Mapping[str, str]
) -> CudaSessionError:
    """Why some of the network would run on the CPU; loads it once more, with the CPU allowed, to find out."""
    with _translated():
        session = _session(runtime, source, options, {_RECORD_NODES: "1"})
    if session.get_providers()[:1] != [PROVIDER]:
        return _not_loaded()
    operators = "some operators"
    with contextlib.suppress(AttributeError):  # an ONNX Runtime that does not tell
        groups = session.get_provider_graph_assignment_info()
        names = {node.op_type for group in groups if group.ep_name != PROVIDER for node in group.get_nodes()}
        operators = ", ".join(sorted(names)) or operators
    return UnsupportedOperatorError(f"the CUDA provider leaves {operators} to the CPU")


def _not_loaded() -> CudaProviderError:
    action = "pip install 'onnxruntime-gpu[cuda,cudnn]' brings the libraries it needs"
    return CudaProviderError(f"ONNX Runtime's CUDA provider does not load: {action}")


def _classified(error: Exception) -> CudaSessionError:
    text = " ".join(str(error).split())
    if _OUT_OF_MEMORY.search(text):
        return OutOfDeviceMemoryError(f"the GPU's memory is too small: {text}")
    if _UNSUPPORTED.search(text):
        return UnsupportedOperatorError(f"the CUDA provider lacks an operator: {text}")
    return CudaSessionError(f"ONNX Runtime fails on the GPU: {text}")


def _is_runtimes(error: Exception) -> bool:
    """Whether ONNX Runtime raised it: its exceptions share no base but Exception; some are RuntimeError."""
    return type(error).__module__.startswith("onnxruntime") or isinstance(error, RuntimeError)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_runtimes(error):
            raise
        raise _classified(error) from error
