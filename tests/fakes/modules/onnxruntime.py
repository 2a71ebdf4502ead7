"""Stands in for an ONNX Runtime with CUDA: it claims that provider, and computes on the CPU.

Whatever it does not change is the real ONNX Runtime's. A run computes its outputs on the CPU at once and then
launches kernels of the stub driver on the session's stream, which only take time. FAKE_ORT is JSON:

    provider       "loads" (default), "absent", or "broken": built in, but a library of CUDA is missing
    cpu_operators  operators that the provider leaves to the CPU
    oom_batch      runs of this batch and larger ones find no memory
    kernel_us      device time of one of a run's 4 kernels for a batch of 1 on 80 multiprocessors
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


def _real_module() -> ModuleType:
    found = sys.modules.get("onnxruntime")
    if found is not None and getattr(found, "__file__", None) != __file__:
        return found
    sys.modules.pop("onnxruntime", None)
    here, path = Path(__file__).parent, sys.path
    sys.path = [entry for entry in path if Path(entry or ".").resolve() != here]
    try:
        return importlib.import_module("onnxruntime")
    finally:
        sys.path = path


_us = sys.modules.get(__name__) if __name__ == "onnxruntime" else None
real = _real_module()
globals().update({name: value for name, value in vars(real).items() if not name.startswith("__")})
__version__, __path__ = real.__version__, real.__path__
if _us is not None and getattr(_us, "__file__", None) == __file__:
    sys.modules["onnxruntime"] = _us

_state: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")

CUDA = "CUDAExecutionProvider"
KERNELS = 4
OPTIONS = {  # of onnxruntime.ai, "CUDA Execution Provider"
    "device_id", "user_compute_stream", "do_copy_in_default_stream", "use_ep_level_unified_stream",
    "gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace",
    "cudnn_conv1d_pad_to_nc1d", "enable_cuda_graph", "enable_skip_layer_norm_strict_mode", "use_tf32",
    "gpu_external_alloc", "gpu_external_free", "gpu_external_empty_cache", "prefer_nhwc",
    "tunable_op_enable", "tunable_op_tuning_enable",
}  # fmt: skip
NO_CPU = "session.disable_cpu_ep_fallback"
ON_CPU = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU"
    " EP, but fallback to CPU EP has been explicitly disabled by the user."
)

NO_LIBRARY = (
    "[E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] [ONNXRuntimeError] : 1 : FAIL : Failed"
    " to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared"
    " object file: No such file or directory"
)


def _settings() -> dict[str, Any]:
    return {"provider": "loads", "cpu_operators": [], "oom_batch": 1 << 30, "kernel_us": 1000} | json.loads(
        os.environ.get("FAKE_ORT", "{}")
    )


def get_available_providers() -> list[str]:
    return ["CPUExecutionProvider"] if _settings()["provider"] == "absent" else [CUDA, "CPUExecutionProvider"]


def preload_dlls(*_: Any, **__: Any) -> None:
    print("what it cannot find, it prints")


class _Device:
    """The stub driver, as far as ONNX Runtime would use it; needs a current context."""

    def __init__(self, stream: int) -> None:
        self._driver, self._stream = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(stream)
        sm_count = ctypes.c_int()
        self._check(self._driver.cuDeviceGetAttribute(ctypes.byref(sm_count), 16, 0))
        self._slower = 80 / sm_count.value
        self._memory: list[ctypes.c_uint64] = []

    def allocate(self, mib: int) -> None:
        pointer = ctypes.c_uint64()
        self._check(self._driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(mib << 20)))
        self._memory.append(pointer)

    def launch(self, kernel_us: float) -> None:
        kernel = ctypes.c_void_p(round(kernel_us * 1000 * self._slower))
        for _ in range(KERNELS):
            self._check(self._driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, self._stream, None, None))

    def synchronize(self) -> None:
        self._check(self._driver.cuStreamSynchronize(self._stream))

    def free(self) -> None:
        for pointer in self._memory:
            self._driver.cuMemFree_v2(pointer)

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise RuntimeError(f"CUDA failure {code}: out of memory" if code == 2 else f"CUDA failure {code}")


class InferenceSession(real.InferenceSession):  # type: ignore[misc,name-defined]
    def __init__(self, source: Any, options: Any, providers: Any, **rest: Any) -> None:
        ((name, given),) = providers
        assert name == CUDA
        assert given.keys() <= OPTIONS and all(isinstance(value, str) for value in given.values()), given
        assert rest == {"enable_fallback": 0}, rest
        settings = _settings()
        self._loads, self._cpu_operators = settings["provider"] == "loads", settings["cpu_operators"]
        on_cpu = self._cpu_operators or not self._loads
        try:
            refused = options.get_session_config_entry(NO_CPU) == "1"
        except RuntimeError:
            refused = False
        if not self._loads:
            print(NO_LIBRARY, file=sys.stderr)
        if on_cpu and refused:
            raise _state.Fail(ON_CPU)
        options.add_session_config_entry(NO_CPU, "0")
        super().__init__(source, options, providers=["CPUExecutionProvider"])
        self._device: _Device | None = None
        self._batches: set[int] = set()
        if "user_compute_stream" in given and self._loads:
            self._device = _Device(int(given["user_compute_stream"]))
            self._device.allocate(64)  # the weights

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"] if self._loads else ["CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        nodes = [SimpleNamespace(op_type=name) for name in self._cpu_operators]
        groups = [SimpleNamespace(ep_name=CUDA, get_nodes=lambda: [SimpleNamespace(op_type="Relu")])]
        return [*groups, SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: nodes)]

    def io_binding(self) -> Any:
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        batch, settings = iobinding.batch, _settings()
        if batch >= settings["oom_batch"]:
            raise _state.RuntimeException(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running"
                " Conv node. Status Message: bfc_arena.cc:376 onnxruntime::BFCArena::AllocateRawInternal()"
                " Failed to allocate memory for requested buffer of size 8388608000"
            )
        super().run_with_iobinding(iobinding, run_options)
        if self._device is not None:
            if batch not in self._batches:
                self._batches.add(batch)
                self._device.allocate(8 * batch)
            self._device.launch(settings["kernel_us"] * batch)
            if run_options.get_run_config_entry("disable_synchronize_execution_providers") != "1":
                self._device.synchronize()

    def __del__(self) -> None:
        if getattr(self, "_device", None) is not None:
            self._device.free()  # type: ignore[union-attr]


class IOBinding(real.IOBinding):  # type: ignore[misc,name-defined]
    batch = 1

    def bind_ortvalue_input(self, name: str, ortvalue: Any) -> None:
        if shape := ortvalue.shape():
            self.batch = shape[0]
        super().bind_ortvalue_input(name, ortvalue)

    def bind_output(self, name: str, device_type: str = "cpu", *_: Any) -> None:
        assert device_type == "cuda"
        super().bind_output(name, "cpu")


class OrtValue(real.OrtValue):  # type: ignore[misc,name-defined]
    @staticmethod
    def ortvalue_from_numpy(value: Any, device_type: str = "cpu", device_id: int = 0, *_: Any) -> Any:
        assert (device_type, device_id) == ("cuda", 0)
        return real.OrtValue.ortvalue_from_numpy(value, "cpu", 0)
