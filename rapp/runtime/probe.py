"""What CUDA lets a process of a given environment do: asked in a process of its own.

    found = probe({**os.environ, **daemon.client_environment(50)}, session=True)
    found.device.sm_count                    # of the partition

Another process, because a partition is fixed by the environment at the first call of CUDA, and because a
broken installation may crash. It has never run on a physical GPU.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from rapp.errors import RappError
from rapp.runtime.driver import DeviceProperties, Driver, Stream

TIMEOUT_S = 120.0
"""The first start of CUDA, cuDNN and ONNX Runtime on a network file system takes the longest."""

_MISSING_LIBRARY = re.compile(r"error: (\S+\.so\S*: .+)")
"""What dlopen says, in a line of ONNX Runtime's log."""
_PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_STDERR_CHARACTERS = 600


class ProbeError(RappError):
    """CUDA, or a session on it, does not work in that environment; the message says how far it got."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a process found.

    Args:
        driver: CUDA version that the driver supports.
        device: the first GPU that the process sees.
        onnxruntime: version that ran a network on the GPU; None: not asked for.
    """

    driver: str
    device: DeviceProperties
    onnxruntime: str | None = None


def probe(
    environment: Mapping[str, str] | None = None, *, session: bool = False, timeout_s: float = TIMEOUT_S
) -> Probe:
    """Start a process that uses the first GPU it sees, and say what it found.

    Where the environment names an MPS daemon, the process checks that it is a client of it.

    Args:
        environment: of the process; None: this one's. session: whether to run a network too.

    Raises:
        ProbeError: something of it does not work, or takes longer than `timeout_s`.
    """
    command = [sys.executable, "-P", "-m", "rapp.runtime.probe", *(["session"] if session else [])]
    given = dict(os.environ if environment is None else environment)
    try:
        done = subprocess.run(
            command, env=given, timeout=timeout_s, capture_output=True, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise ProbeError(f"CUDA gave no answer within {timeout_s:g} s: run nvidia-smi") from error
    lines = done.stdout.splitlines()
    try:
        said = json.loads(lines[-1]) if lines else {}
    except ValueError:
        said = {}
    if "error" in said:
        # ONNX Runtime writes to stderr which library it misses, and does not raise it.
        missing = _MISSING_LIBRARY.search(done.stderr)
        raise ProbeError(f"{said['error']} ({missing[1].strip()})" if missing else said["error"])
    if done.returncode != 0 or "device" not in said:
        raise ProbeError(f"a process that uses CUDA ends with {done.returncode}: {_tail(done.stderr)}")
    return Probe(said["driver"], DeviceProperties(**said["device"]), said["onnxruntime"])


def _tail(text: str) -> str:
    return " ".join(text.split())[-_STDERR_CHARACTERS:]


def _look(session: bool) -> Probe:
    driver = Driver()
    found = Probe(driver.version, driver.device(0))
    if not session and not os.environ.get(_PIPES):
        return found  # without a context, so that nobody on the GPU is disturbed
    with driver.context(0) as context:
        if os.environ.get(_PIPES):
            from rapp.runtime.mps import MpsControl

            MpsControl.of_client().check_client(os.getpid())
        if not session:
            return found
        with context.stream() as stream:
            return replace(found, onnxruntime=_run_network(stream))


def _run_network(stream: Stream) -> str:
    """Run a convolution and a matrix product, so that cuDNN and cuBLAS load, and check the numbers."""
    import numpy as np

    from rapp.runtime.cuda_session import BoundNetwork, cuda_session
    from rapp.runtime.session import import_onnxruntime

    network = BoundNetwork(
        cuda_session(_network(), stream=stream.handle), {"x": np.ones((1, 1, 4, 4), dtype=np.float32)}
    )
    network.launch()
    stream.synchronize()
    (y,) = network.outputs()
    if not np.array_equal(y, np.full((1, 1, 2, 2), 18, dtype=np.float32)):
        raise ProbeError(
            f"a network on the GPU gives wrong numbers: {np.ravel(y).tolist()}, all should be 18"
        )
    return str(import_onnxruntime().__version__)


def _network() -> bytes:
    """x (1, 1, 4, 4) -> convolution with 3 x 3 ones -> product with 2 x 2 ones: 9 + 9 where x is 1."""
    from onnx import TensorProto, helper

    def ones(name: str, *shape: int) -> TensorProto:
        count = int.__mul__(shape[-1], shape[-2])
        return helper.make_tensor(name, TensorProto.FLOAT, shape, [1.0] * count)

    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("MatMul", ["c", "m"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])],
        [ones("w", 1, 1, 3, 3), ones("m", 2, 2)],
    )
    # Old versions of both, which every ONNX Runtime that this project supports can read.
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


def main() -> None:
    """The process's side: one line of JSON on stdout, an expected outcome as `error`."""
    try:
        said = asdict(_look("session" in sys.argv[1:]))
    except RappError as error:
        said = {"error": str(error)}
    print(json.dumps(said), flush=True)
    # Without the interpreter's end, which waits for what libraries of a broken driver left behind.
    os._exit(0)


if __name__ == "__main__":
    main()
