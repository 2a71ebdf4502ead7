"""The device `cuda`: one NVIDIA GPU, its SM partitions by MPS, its time quota by the gate.

    with CudaDevice("0") as device, device.open(NetworkFile("net", Path("net.onnx")), sm_pct=50) as session:
        ...

Nothing on the GPU changes before the first `open`: then this process claims the GPU, undoes what killed
processes left on it, holds its clocks if it may (root), starts a private MPS daemon and checks that a network
runs under it. `close` undoes all of that; so does the end of the process, and after `kill -9` the next start.

It has never run on a physical GPU: only on a stub driver, with imitations of NVML, of the MPS daemon and of
ONNX Runtime's CUDA provider. `scripts/gpu_acceptance.sh` is what its first run on one should be.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import os
import platform
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Self

from profiler.device import DeviceInfo, Failure, MeasureError, NetworkFile, Session
from profiler.worker import CALL_TIMEOUT_S, worker_session
from rapp.errors import ConfigError, RappError
from rapp.runtime.claim import GpuClaim
from rapp.runtime.leftovers import clean_up
from rapp.runtime.mps import MpsDaemon, MpsError
from rapp.runtime.nvml import Nvml
from rapp.runtime.partition import check_gpu, why_no_partitions
from rapp.runtime.probe import probe
from rapp.types import QuotaKind

_LOG = logging.getLogger(__name__)

WHOLE_PCT = 100.0


class BusyGpuError(RappError):
    """Other processes compute on the GPU."""


class CudaDevice:
    """A `Device` of one GPU; its sessions may be open together, each in a partition of its own.

    Args:
        which: number or UUID of the GPU, or UUID of a slice of one (MIG).
        window_ms: window of the quota, ms.
        idle_ms: pause between one batch and the next, ms.
        call_timeout_s: longest time of one call to a worker, s.

    Raises:
        ConfigError: no such GPU, or an argument out of its range.
        MissingExtraError: pynvml is not installed.
        RappError: driver or GPU cannot be used; the message names the next action.
    """

    def __init__(
        self,
        which: str = "0",
        *,
        window_ms: float = 40.0,
        idle_ms: float = 0.0,
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        if not 0 < window_ms < math.inf:
            raise ConfigError(f"window_ms is {window_ms:g}: it must be above 0")
        if not 0 <= idle_ms < math.inf:
            raise ConfigError(f"idle_ms is {idle_ms:g}: it must be 0 or more")
        self._window_ms, self._idle_ms, self._call_timeout_s = window_ms, idle_ms, call_timeout_s
        self._lock = threading.Lock()
        self._open_sessions = 0
        # What is given back by `close`: from the first `open` on, and from now on.
        self._held, self._acquired = ExitStack(), False
        self._daemon: MpsDaemon | None = None
        self._start_c: float | None = None
        self._closed = ExitStack()
        library = Nvml()
        self._closed.callback(library.close)
        try:
            self._gpu = library.gpu(which)
            self._about, self._driver = self._gpu.info(), library.driver_version()
            check_gpu(self._about)
            self._no_partitions = why_no_partitions(self._about)
            self._used_mib = self._gpu.state().memory_used_mib
            self._found = probe(self._environment({"CUDA_VISIBLE_DEVICES": self._about.uuid}))
        except BaseException:
            self._closed.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def info(self) -> DeviceInfo:
        """As `Device.info`."""
        return DeviceInfo(
            device=self._about.name,
            device_uuid=self._about.uuid,
            runtime="ort-cuda",
            precision="fp32",
            quota_kind=QuotaKind.GPU_TIME,
            window_ms=self._window_ms,
            granularity_ms=None,
            idle_ms=self._idle_ms,
            memory_mib=self._about.memory_mib - self._used_mib,
            software=self._software(),
        )

    def why_not(self, sm_pct: float) -> str | None:
        """As `Device.why_not`: a partition has a whole number of multiprocessors, and needs MPS."""
        if not 0 < sm_pct <= WHOLE_PCT:
            return f"an SM partition lies in (0, 100] %, not at {sm_pct:g} %"
        total = self._found.device.sm_count
        if total * sm_pct / 100 < 1:
            return f"{sm_pct:g} % of {total} multiprocessors is less than one"
        return self._no_partitions if sm_pct < WHOLE_PCT else None

    @contextmanager
    def open(self, network: NetworkFile, sm_pct: float) -> Iterator[Session]:
        """As `Device.open`.

        Raises:
            MeasureError: the network has no file, or the partition cannot be had.
            ClaimError: another `rapp` process holds the GPU.
            BusyGpuError: other processes compute on it.
            RappError: MPS or CUDA cannot be used at all; the message names the next action.
        """
        if network.path is None:
            raise MeasureError(Failure.UNSUPPORTED, f"{network.name} has no file to run")
        if why := self.why_not(sm_pct):
            raise MeasureError(Failure.PARTITION, why)
        with self._lock:
            self._acquire()
            # Beside another session it would not get cool.
            if not self._open_sessions and not self._gpu.wait_until_cool(self._start_c):
                _LOG.warning("GPU %s is still warm from the session before", self._about.index)
            self._open_sessions += 1
        arguments = {
            "path": str(network.path.absolute()),
            "gpu_uuid": self._about.uuid,
            "sm_pct": sm_pct,
            "sm_total": self._found.device.sm_count,
            "mps": self._daemon is not None,
            "window_ms": self._window_ms,
            "idle_ms": self._idle_ms,
        }
        try:
            with worker_session(
                "profiler.devices.cuda_executor:make_executor",
                arguments,
                env=self._client_environment(sm_pct),
                call_timeout_s=self._call_timeout_s,
            ) as session:
                yield session
        finally:
            with self._lock:
                self._open_sessions -= 1

    def close(self) -> None:
        """As `Device.close`: stops the daemon, lets the clocks go, gives the GPU back."""
        self._held.close()
        self._acquired, self._daemon = False, None
        self._closed.close()

    def _acquire(self) -> None:
        """Make the GPU ours; later, see to it that the daemon lives."""
        if self._acquired:
            self._revive()
            return
        for leftover in clean_up():
            _LOG.warning("left by a process that was killed: %s", leftover.text)
        state = self._gpu.state()
        self._start_c = state.temperature_c
        if others := sorted(state.pids):
            pids = ", ".join(map(str, others))
            raise BusyGpuError(
                f"GPU {self._about.index} is used by other processes: end them first (pid {pids})"
            )
        with ExitStack() as held:
            claim = held.enter_context(GpuClaim(self._about.uuid))
            self._lock_clocks(claim)
            if self._no_partitions is None:
                self._daemon = held.enter_context(MpsDaemon(claim))
            probe(self._client_environment(WHOLE_PCT), session=True)
            self._held, self._acquired = held.pop_all(), True

    def _lock_clocks(self, claim: GpuClaim) -> None:
        claim.note(clocks_locked=True)
        clock_mhz = self._gpu.lock_clocks()
        if clock_mhz is None:
            claim.note(clocks_locked=False)
            _LOG.info("clocks are free: blocks in which the SM clock moves are measured again")
        else:
            claim.on_release(self._gpu.reset_clocks)
            _LOG.info("SM clock held at %s MHz", clock_mhz)

    def _revive(self) -> None:
        """Start the daemon again if it has gone, as after a client that took it along."""
        if self._daemon is None or self._open_sessions:
            return
        try:
            self._daemon.control.command("get_server_list")
        except MpsError as error:
            _LOG.warning("the MPS daemon is started again: %s", error)
            self._daemon.stop(ask=False)
            self._daemon.start()

    def _client_environment(self, sm_pct: float) -> dict[str, str]:
        if self._daemon is None:
            return self._environment({"CUDA_VISIBLE_DEVICES": self._about.uuid})
        return self._environment(self._daemon.client_environment(sm_pct))

    @staticmethod
    def _environment(changes: Mapping[str, str]) -> dict[str, str]:
        """This process's environment, with no daemon of MPS but ours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_MPS_")}
        return {**kept, **changes}

    def _software(self) -> dict[str, str]:
        """What runs the network, for the column `software`."""
        known = {
            "python": platform.python_version(),
            "driver": self._driver,
            "cuda_driver": self._found.driver,
            "mps": "on" if self._no_partitions is None else "off",
        }
        for name in ("onnxruntime-gpu", "onnxruntime"):
            try:
                known[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return known
