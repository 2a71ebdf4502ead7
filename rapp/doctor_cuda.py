"""What of RaPP works on a GPU, by trying it: the driver, a network on it, SM partitions, clocks.

Takes seconds, and needs the GPU for itself. It has never run on a physical GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing

from rapp.doctor_check import Check, State
from rapp.errors import RappError
from rapp.runtime.claim import ClaimError, GpuClaim
from rapp.runtime.gpu import GpuInfo
from rapp.runtime.mps import MpsDaemon
from rapp.runtime.nvml import Nvml
from rapp.runtime.partition import check_gpu, check_partition, why_no_partitions
from rapp.runtime.probe import Probe, ProbeError, probe

PARTITIONS_PCT = (25.0, 50.0)
"""Tried out; below 100 %, where a process without MPS would see the whole GPU."""


def try_gpu(info: GpuInfo) -> Iterator[Check]:
    """Try what profiling needs on a GPU; what depends on something broken is not tried."""
    try:
        check_gpu(info)
    except RappError:
        return  # said already where the GPU is described
    cuda, found = try_cuda(info)
    yield cuda
    if found is None:
        return
    yield try_network(info)
    yield try_partitions(info, found)
    yield try_clocks(info)


def try_cuda(info: GpuInfo) -> tuple[Check, Probe | None]:
    """Load the CUDA driver in a process that sees this GPU alone."""
    name = f"GPU {info.index} CUDA"
    try:
        found = probe(_environment(info))
    except ProbeError as error:
        return Check(name, State.PROBLEM, str(error), "run nvidia-smi; after a driver update, reboot"), None
    device = found.device
    text = f"CUDA {found.driver}, {device.sm_count} multiprocessors"
    return Check(name, State.OK, text, None, {"cuda": found.driver, "sm_count": device.sm_count}), found


def try_network(info: GpuInfo) -> Check:
    """Run a small network on ONNX Runtime's CUDA provider, and check its numbers."""
    name = f"GPU {info.index} network"
    try:
        found = probe(_environment(info), session=True)
    except ProbeError as error:
        action = "pip install 'onnxruntime-gpu[cuda,cudnn]' brings CUDA and cuDNN"
        return Check(name, State.PROBLEM, str(error), action)
    text = f"ONNX Runtime {found.onnxruntime} runs on it"
    return Check(name, State.OK, text, None, {"onnxruntime": found.onnxruntime})


def try_partitions(info: GpuInfo, whole: Probe) -> Check:
    """Start an MPS daemon, see that a process gets the multiprocessors it asks for, and stop the daemon."""
    name = f"GPU {info.index} partitions"
    if why := why_no_partitions(info):
        return Check(name, State.MISSING, why, "profile with --sm 100")
    begun_s = time.monotonic()
    counts: dict[float, int] = {}
    try:
        with GpuClaim(info.uuid) as claim, MpsDaemon(claim) as daemon:
            for sm_pct in PARTITIONS_PCT:
                found = probe({**_environment(info), **daemon.client_environment(sm_pct)})
                counts[sm_pct] = found.device.sm_count
                check_partition(sm_pct, found.device.sm_count, whole.device.sm_count)
    except ClaimError as error:
        return Check(name, State.MISSING, f"not tried: {error}", "run `rapp doctor` again afterwards")
    except RappError as error:
        action = "end other MPS daemons, and what else uses the GPU; then run `rapp doctor` again"
        return Check(name, State.PROBLEM, str(error), action)
    got = ", ".join(f"{count} of {whole.device.sm_count} at {pct:g} %" for pct, count in counts.items())
    text = f"multiprocessors: {got}; MPS daemon started and stopped in {time.monotonic() - begun_s:.1f} s"
    facts = {"sm_count": {f"{pct:g}": count for pct, count in counts.items()}}
    return Check(name, State.OK, text, None, facts)


def try_clocks(info: GpuInfo) -> Check:
    """Whether this user may hold the SM clock: hold it, and let it go."""
    name = f"GPU {info.index} clocks"
    try:
        with closing(Nvml()) as library, GpuClaim(info.uuid) as claim:
            gpu = library.gpu(info.uuid)
            claim.note(clocks_locked=True)
            clock_mhz = gpu.lock_clocks()
            if clock_mhz is not None:
                gpu.reset_clocks()
    except ClaimError as error:
        return Check(name, State.MISSING, f"not tried: {error}", "run `rapp doctor` again afterwards")
    except RappError as error:
        return Check(name, State.PROBLEM, str(error), f"sudo nvidia-smi -i {info.index} -rgc")
    if clock_mhz is None:
        text = "cannot be held: blocks of runs in which they move are measured again"
        return Check(name, State.MISSING, text, "profile as root, for steadier figures")
    return Check(name, State.OK, f"can be held at {clock_mhz:,} MHz", None, {"clock_mhz": clock_mhz})


def _environment(info: GpuInfo) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_MPS_")}
    return {**kept, "CUDA_VISIBLE_DEVICES": info.uuid}
