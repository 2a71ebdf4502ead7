"""Steps of `gpu_acceptance.py` that open sessions: timing, quota, partitions, memory, and a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
from gpu_acceptance_bench import BATCHES, Bench, CheckFailed, Facts
from onnx import TensorProto, helper

from profiler.device import Failure, MeasureError, NetworkFile
from profiler.worker import WorkerSession
from rapp.runtime.leftovers import clean_up
from rapp.runtime.mps import CONTROL
from rapp.runtime.processes import processes_named
from rapp.runtime.quota import QuotaBlock

SCRIPTS = Path(__file__).parent

SHARE_QUOTAS_PCT = (10.0, 25.0, 50.0, 75.0)
SHARE_TOLERANCE_PCT = 3.0
"""Of device time within the wall time, in points: what the device `cpu` is held to as well."""


def launching(bench: Bench) -> Facts:
    """A launch returns before the device has finished: host and device time are told apart."""
    with bench.open_device() as device, device.open(bench.file, 20) as session:
        session.prepare(8)
        session.run(5)
        block = session.run(10)
    assert block.device_ms is not None and block.launch_ms is not None
    device_ms, launch_ms = float(np.median(block.device_ms)), float(np.median(block.launch_ms))
    facts = {"device_ms": device_ms, "launch_ms": launch_ms, "wall_ms": float(np.median(block.wall_ms))}
    if launch_ms > 0.9 * device_ms:
        raise CheckFailed("a run of batch 8 at SM 20 % returns only when the device has finished", **facts)
    return {"said": f"device {device_ms:.2f} ms, launched in {launch_ms:.2f} ms", **facts}


def gate_share(bench: Bench) -> Facts:
    """The gate holds device time to the quota, in points of the wall time."""
    shares: dict[str, float] = {}
    with bench.open_device() as device, device.open(bench.file, 100) as session:
        session.prepare(BATCHES[-1])
        batch_ms = float(np.median(session.run(10).wall_ms))
        runs = max(10, round((500 if bench.quick else 4000) / batch_ms))
        for quota_pct in SHARE_QUOTAS_PCT:
            session.set_quota(quota_pct)
            session.run(max(3, round(50 / batch_ms)))  # uses up the credit of the full bucket
            block = session.run(max(5, round(runs * quota_pct / 100)))
            assert block.device_ms is not None
            shares[f"{quota_pct:g}"] = 100 * float(block.device_ms.sum() / block.wall_ms.sum())
    worst = max(abs(share - float(quota)) for quota, share in shares.items())
    text = ", ".join(f"{share:.1f} at {quota} %" for quota, share in shares.items())
    if worst > SHARE_TOLERANCE_PCT:
        raise CheckFailed(f"share of device time: {text}; off by {worst:.1f} points", share_pct=shares)
    return {"said": f"share of device time: {text}", "share_pct": shares}


def quota_library(bench: Bench) -> Facts:
    """The library for programs of others holds a program's device time to the quota."""
    library = SCRIPTS.parent / "native" / "build" / "librapp_quota.so"
    if not library.is_file():
        return {"skipped": True, "said": "not built: make native"}
    with bench.open_device() as device:
        uuid = str(device.info.device_uuid)
    load = [sys.executable, str(SCRIPTS / "gpu_acceptance_load.py"), str(bench.network)]
    found: dict[float, Mapping[str, float]] = {}
    with QuotaBlock.create(bench.folder / "quota") as block:
        environment = {
            **os.environ, "CUDA_VISIBLE_DEVICES": uuid, "LD_PRELOAD": str(library),
            "RAPP_QUOTA_BLOCK": str(block.path), "RAPP_QUOTA_REQUIRED": "1",
        }  # fmt: skip
        for quota_pct in (100.0, 30.0):
            block.quota_pct = quota_pct
            command = [*load, "2" if bench.quick else "10"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise CheckFailed(f"the program ends with {done.returncode}: {done.stderr.strip()[-400:]}")
            found[quota_pct] = json.loads(done.stdout.splitlines()[-1])
        launches = block.statistics.launches
        block.unlink()
    free_pct, held_pct = (found[quota_pct]["share_pct"] for quota_pct in (100.0, 30.0))
    said = f"share of device time {held_pct:.1f} % at a quota of 30 %, {free_pct:.1f} % without"
    if not launches or abs(held_pct - min(30.0, free_pct)) > SHARE_TOLERANCE_PCT:
        raise CheckFailed(f"{said}; {launches} launches seen", by_quota_pct=found)
    return {"said": said, "by_quota_pct": found, "launches": launches}


def side_by_side(bench: Bench) -> Facts:
    """Two percentages give two partitions at once; one client is killed, and the other goes on."""
    with bench.open_device() as device, ExitStack() as stack:
        small, large = (stack.enter_context(device.open(bench.file, sm_pct)) for sm_pct in (20.0, 60.0))
        for session in (small, large):
            session.prepare(1)
        counts = small.sm_count, large.sm_count
        if not (counts[0] and counts[1] and counts[0] < counts[1]):
            raise CheckFailed(f"20 and 60 % give {counts[0]} and {counts[1]} multiprocessors")
        assert isinstance(small, WorkerSession)
        os.kill(small.pid, signal.SIGKILL)
        try:
            small.run(1)
        except MeasureError as error:
            if error.failure is not Failure.CRASHED:
                raise CheckFailed(f"a killed client ends as: {error}") from error
        else:
            raise CheckFailed("a killed client goes on")
        large.run(5)
        with device.open(bench.file, 20) as again:
            again.prepare(1)
            again.run(1)
    return {"said": f"{counts[0]} and {counts[1]} multiprocessors; a killed client harms no other"}


def out_of_memory(bench: Bench) -> Facts:
    """A batch that does not fit ends as out of memory, and the next session works."""
    path = bench.folder / "wide.onnx"
    graph = helper.make_graph(
        [
            helper.make_node("Expand", ["x", "wide"], ["e"]),
            helper.make_node("Exp", ["e"], ["f"]),
            helper.make_node("ReduceMax", ["f"], ["y"], axes=[1], keepdims=1),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor("wide", TensorProto.INT64, [2], [1, 1 << 22])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    wide = NetworkFile("wide", path)
    with bench.open_device() as device:
        with device.open(wide, 100) as session:
            try:
                session.prepare(1 << 18)  # 4 TiB
            except MeasureError as error:
                if error.failure is not Failure.OUT_OF_MEMORY:
                    raise CheckFailed(f"4 TiB end as: {error}") from error
            else:
                raise CheckFailed("4 TiB fit")
        with device.open(wide, 100) as session:
            session.prepare(1)
            return {"said": "recognised", "peak_memory_mib": session.peak_memory_mib}


_KILLED = """
import os, sys
from pathlib import Path
from profiler.device import NetworkFile
from profiler.devices.cuda import CudaDevice
device = CudaDevice(sys.argv[1])
session = device.open(NetworkFile("network", Path(sys.argv[2])), 50)
session.__enter__()
os.kill(os.getpid(), 9)
"""


def after_a_kill(bench: Bench) -> Facts:
    """A profiler that is killed leaves a daemon, which the next start stops."""
    before = processes_named(CONTROL)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, bench.which, str(bench.network)], capture_output=True, text=True
    )
    if done.returncode != -signal.SIGKILL:
        raise CheckFailed(f"the profiler to kill ends by itself: {done.stderr.strip()[-400:]}")
    left = processes_named(CONTROL) - before
    if not left:
        raise CheckFailed("the killed profiler's MPS daemon is not there")
    time.sleep(1)  # for its worker to end
    undone = [leftover.text for leftover in clean_up()]
    if processes_named(CONTROL) - before:
        raise CheckFailed("the MPS daemon of a killed profiler still runs", undone=undone)
    return {"said": "; ".join(undone)}
