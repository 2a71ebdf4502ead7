"""NVML, NVIDIA's management library, through the module `pynvml` of nvidia-ml-py: finding and calling.

    with closing(Nvml()) as library:
        gpu = library.gpu("cuda:0")          # rapp.runtime.gpu.Gpu

Functions and values are those of nvml.h. Tested against an imitation of the module, whose functions are
those of nvidia-ml-py 13.615; it has never run on a physical GPU.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from rapp.errors import ConfigError, MissingExtraError, RappError
from rapp.runtime.gpu import Gpu

NO_DRIVER = (9, 12)
"""NVML_ERROR_DRIVER_NOT_LOADED and NVML_ERROR_LIBRARY_NOT_FOUND."""
_INVALID_ARGUMENT, _NOT_FOUND = 2, 6
_NOT_SUPPORTED, _NO_PERMISSION, _FUNCTION_NOT_FOUND = 3, 4, 13
"""The last: a driver older than the module."""


class NvmlError(RappError):
    """NVML cannot be used, or refuses a call.

    Args:
        call: the function of NVML, or what was asked for. code: an NVML_ERROR_*. reason: in NVML's words.
    """

    def __init__(self, call: str, code: int, reason: str) -> None:
        self.call, self.code, self.reason = call, code, reason
        advice = "install the NVIDIA driver" if code in NO_DRIVER else "run nvidia-smi"
        super().__init__(f"{call}: {reason}: {advice}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.call, self.code, self.reason)


def import_pynvml() -> Any:
    """The module pynvml.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise MissingExtraError("NVML for Python (nvidia-ml-py)", "gpu") from error


class Nvml:
    """The initialised library; close it.

    Raises:
        MissingExtraError: pynvml is not installed.
        NvmlError: there is no driver, or it fails.
    """

    def __init__(self) -> None:
        self._module = import_pynvml()
        self.call("nvmlInit")

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of pynvml.

        Raises:
            NvmlError: it fails.
        """
        try:
            return getattr(self._module, name)(*arguments)
        except self._module.NVMLError as error:
            raise _failed(name, error) from error

    def optional(self, names: str, *arguments: Any) -> Any:
        """Answer of the first of several functions that is there for this driver and GPU; None if none is.

        Args:
            names: of functions with one meaning, the newest first, with spaces between them.

        Raises:
            NvmlError: one fails for another reason than that it is not supported or not permitted.
        """
        for name in names.split():
            function = getattr(self._module, name, None)
            if function is None:
                continue
            try:
                return function(*arguments)
            except self._module.NVMLError as error:
                if error.value not in (_NOT_SUPPORTED, _NO_PERMISSION, _FUNCTION_NOT_FOUND):
                    raise _failed(name, error) from error
        return None

    def permitted(self, name: str, *arguments: Any) -> bool:
        """Whether a function that changes the GPU did so; False: not supported, or not permitted.

        Raises:
            NvmlError: it fails for another reason.
        """
        try:
            getattr(self._module, name)(*arguments)
        except self._module.NVMLError as error:
            if error.value not in (_NOT_SUPPORTED, _NO_PERMISSION, _FUNCTION_NOT_FOUND):
                raise _failed(name, error) from error
            return False
        return True

    def gpu(self, which: str) -> Gpu:
        """A GPU, or a slice of one, by `cuda:0`, `0`, or a UUID or the beginning of one.

        A number counts within CUDA_VISIBLE_DEVICES where that is set, and as nvidia-smi counts elsewhere.

        Raises:
            ConfigError: there is no such GPU. NvmlError: NVML fails.
        """
        name = which.removeprefix("cuda:")
        if name.isdigit() and (visible := os.environ.get("CUDA_VISIBLE_DEVICES")):
            listed = [one.strip() for one in visible.split(",")]
            if int(name) >= len(listed):
                raise ConfigError(f"no GPU {which}: CUDA_VISIBLE_DEVICES leaves {len(listed)}: {visible}")
            name = listed[int(name)]
        try:
            return Gpu(self, self._handle(name))
        except self._module.NVMLError as error:
            if error.value not in (_INVALID_ARGUMENT, _NOT_FOUND):
                raise _failed(which, error) from error
            raise ConfigError(f"no GPU {which} here: `nvidia-smi -L` lists them") from error

    def gpus(self) -> list[Gpu]:
        """All GPUs, as nvidia-smi counts them."""
        count = self.call("nvmlDeviceGetCount")
        return [Gpu(self, self.call("nvmlDeviceGetHandleByIndex", index)) for index in range(count)]

    def driver_version(self) -> str:
        """Version of the driver, such as `550.54.15`."""
        return str(self.call("nvmlSystemGetDriverVersion"))

    def close(self) -> None:
        """Give the library back."""
        self.call("nvmlShutdown")

    def _handle(self, name: str) -> Any:
        if name.isdigit():
            return self._module.nvmlDeviceGetHandleByIndex(int(name))
        # CUDA takes the beginning of a UUID, NVML does not.
        whole = [uuid for gpu in self.gpus() if (uuid := gpu.uuid).startswith(name)]
        return self._module.nvmlDeviceGetHandleByUUID(whole[0] if len(whole) == 1 else name)


def _failed(what: str, error: Any) -> NvmlError:
    return NvmlError(what, error.value, str(error))
