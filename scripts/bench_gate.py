"""How well the quota gate keeps its law on this machine's clock, what it costs, and how fast it obeys.

    python scripts/bench_gate.py [--seconds 2] [--networks resnet50,squeezenet] [--json out/gate.json]

Three tables:

- The law. The device is a sleep of T ms, whose real length is charged; so the figures are the gate's own, and
  those of the sleeping of this machine. Whole runs are held, or cut into parts of about 5 ms. The saturated
  share is compared with the quota, the latency of a closed loop with 5 ms idle time with
  max(T, T / q - min(s, W)) for the T and s that really passed.
- Cost and reaction: a wait and a charge; a waiter that naps; another process that raises the quota.
- Networks of the `onnx` package with seeded random weights, cut by `CutSession.open`, on one core: what was
  chosen, what cutting costs, whether the outputs are those of the whole, and the law once more at 50 %.

Shares in % and their error in points; latency, law and the largest debt in ms; the latency's error in %.

The machine should be idle: its load is printed before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

from rapp.cli.tables import console, table
from rapp.errors import RappError
from rapp.fileio import atomic_path
from rapp.runtime import QuotaBlock, QuotaGate, cpu_session
from rapp.runtime.cut_session import CutSession

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
WINDOW_MS, IDLE_MS, PART_MS = 40.0, 5.0, 5.0
QUOTAS_PCT, DEVICE_MS = (1.0, 10.0, 20.0, 50.0, 80.0, 100.0), (5.0, 20.0, 60.0)

# Raises the quota some ms after each line that it is sent, and says when.
SETTER = """
import sys, time
from rapp.runtime import QuotaBlock
with QuotaBlock.open(sys.argv[1]) as block:
    print(flush=True)
    for _ in sys.stdin:
        time.sleep(0.0123)
        block.quota_pct = 100
        print(time.monotonic_ns(), flush=True)
"""

Run = Callable[[QuotaGate], object]


@dataclass(frozen=True)
class Law:
    """The gate at one quota.

    Args:
        share_pct: device time of a saturated loop over all time.
        latency_ms, law_ms: mean latency of the closed loop, and what the law says of it.
        debt_ms: largest debt, which is what the device is held longest beyond its share.
    """

    work: str
    device_ms: float
    quota_pct: float
    share_pct: float
    latency_ms: float
    law_ms: float
    debt_ms: float


def slept(parts: int, device_ms: float) -> Run:
    """A run of `device_ms` on a device that sleeps, in so many parts."""
    part_s = device_ms / parts / 1e3
    return lambda gate: [gate.run(lambda: time.sleep(part_s)) for _ in range(parts)]


def law(work: str, device_ms: float, quota_pct: float, run: Run, seconds: float) -> Law:
    """Run saturated, then in a closed loop, for `seconds` each, and at least three times."""
    quota = quota_pct / 100
    with QuotaBlock.anonymous(quota_pct, WINDOW_MS) as block:
        gate = QuotaGate(block)
        gate.charge(quota * WINDOW_MS)
        run(gate)

        def loop(idle_ms: float) -> tuple[float, float, float]:
            """Means of device time, latency and idle time, ms."""
            used_ms = block.statistics.used_ms
            latencies_ms, begun = [], time.perf_counter()
            while time.perf_counter() - begun < seconds or len(latencies_ms) < 3:
                time.sleep(idle_ms / 1e3)
                started = time.perf_counter()
                run(gate)
                latencies_ms.append(1e3 * (time.perf_counter() - started))
            count, total_ms = len(latencies_ms), 1e3 * (time.perf_counter() - begun)
            mean_ms = sum(latencies_ms) / count
            return (block.statistics.used_ms - used_ms) / count, mean_ms, total_ms / count - mean_ms

        used_ms, saturated_ms, between_ms = loop(0)
        share_pct = 100 * used_ms / (saturated_ms + between_ms)
        used_ms, latency_ms, idle_ms = loop(IDLE_MS)
        law_ms = max(used_ms, used_ms / quota - min(idle_ms, WINDOW_MS))
        debt_ms = block.statistics.max_debt_ms
    return Law(work, device_ms, quota_pct, share_pct, latency_ms, law_ms, debt_ms)


def laws(seconds: float) -> list[Law]:
    """The first table's rows."""
    return [
        law("whole" if parts == 1 else f"{parts} parts", device_ms, quota, slept(parts, device_ms), seconds)
        for device_ms in DEVICE_MS
        for parts in sorted({1, round(device_ms / PART_MS)})
        for quota in QUOTAS_PCT
        if device_ms / quota <= 5  # half a second a run at most
    ]


def costs() -> dict[str, float]:
    """Figure -> value, its unit in its name."""
    found = {}
    with QuotaBlock.anonymous(100) as block:
        gate = QuotaGate(block)
        rounds_us = []
        for _ in range(200):
            begun_ns = time.perf_counter_ns()
            for _ in range(100):
                gate.wait()
                gate.charge(0)
            rounds_us.append((time.perf_counter_ns() - begun_ns) / 100e3)
        found["a wait and a charge, us, median"] = statistics.median(rounds_us)
    with QuotaBlock.anonymous(0.1) as block:
        gate = QuotaGate(block)
        gate.charge(1000)
        begun, cpu = time.perf_counter(), time.process_time()
        gate.wait(timeout_ms=1000)
        elapsed = time.perf_counter() - begun
        found["CPU of a waiter at quota 0.1 %, % of a core"] = 100 * (time.process_time() - cpu) / elapsed
    delays_ms = reactions_ms()
    found["another process raises the quota, a waiter wakes, ms, median"] = statistics.median(delays_ms)
    found["the same, ms, slowest of 20"] = max(delays_ms)
    return found


def reactions_ms() -> list[float]:
    """From the write in another process to the return of a waiter, who then still owes 0.1 ms."""
    delays_ms = []
    with QuotaBlock.create(quota_pct=100, window_ms=WINDOW_MS) as block:
        command = [sys.executable, "-c", SETTER, str(block.path)]
        setter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            with setter:
                assert setter.stdin is not None and setter.stdout is not None
                setter.stdout.readline()
                gate = QuotaGate(block)
                for _ in range(20):
                    gate.wait()
                    block.quota_pct = 0.1
                    gate.wait()
                    gate.charge(0.1 + 0.04)  # 0.04 ms are in the bucket
                    setter.stdin.write("\n")
                    setter.stdin.flush()
                    gate.wait()
                    woken_ns = time.monotonic_ns()
                    delays_ms.append((woken_ns - int(setter.stdout.readline())) / 1e6)
                setter.stdin.close()
        finally:
            block.unlink()
    return delays_ms


def seeded(path: Path) -> ModelProto:
    """A light network with random weights in place of constant ones, without its last softmax, which would
    hide differences."""
    source = onnx.load(path)
    rng = np.random.default_rng(5)
    shapes = {one.name: numpy_helper.to_array(one) for one in source.graph.initializer if one.data_type == 7}
    kept = []
    for node in source.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        dims = shapes[node.input[0]].tolist()
        values = rng.normal(0, (2 / np.prod(dims[1:])) ** 0.5, dims)
        if len(dims) == 1:  # scales and variances among them
            values = 1 + 0.1 * np.abs(values)
        source.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del source.graph.node[:]
    if kept[-1].op_type == "Softmax":
        last = kept.pop().input[0]
        del source.graph.output[:]
        source.graph.output.append(helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    source.graph.node.extend(kept)
    return source


@dataclass(frozen=True)
class Network:
    """One network: what was chosen, the fastest of 15 runs as one and as a chain, how the outputs compare."""

    name: str
    chosen: str
    parts: int
    whole_ms: float
    chain_ms: float
    outputs: str
    law: Law


def network(name: str, seconds: float) -> Network:
    """Cut a network, compare it with the whole, and run it under a quota of 50 %."""
    path = LIGHT / f"light_{name}.onnx"
    if not path.is_file():
        raise RappError(f"{path}: no such network")
    source = seeded(path)
    whole = cpu_session(source.SerializeToString())
    rng = np.random.default_rng(0)
    feeds = {one.name: rng.standard_normal(one.shape).astype(np.float32) for one in whole.get_inputs()}
    chain = CutSession.open(source, feeds, providers=["CPUExecutionProvider"], part_ms=PART_MS)
    times_ms = np.empty((15, 2))
    for row in times_ms:
        for place, run in enumerate((lambda: whole.run(None, feeds), lambda: chain.run(feeds))):
            begun = time.perf_counter()
            answer = run()
            row[place] = 1e3 * (time.perf_counter() - begun)
    expected, found = whole.run(None, feeds)[0], answer[0]
    off = float(np.abs(found - expected).max() / np.abs(expected).max())
    whole_ms, chain_ms = times_ms.min(axis=0).tolist()
    one = law(f"{len(chain.plan)} parts", whole_ms, 50, lambda gate: chain.run(feeds, gate), seconds)
    same = "bit for bit" if np.array_equal(found, expected) else f"to {off:.0e}"
    return Network(name, chain.summary, len(chain.plan), whole_ms, chain_ms, same, one)


def show_laws(rows: Sequence[Law], title: str) -> None:
    shown = table(title, "T ms", "quota", "share", "off", "latency", "law", "off", "debt")
    for one in rows:
        shown.add_row(
            one.work, f"{one.device_ms:.0f}", f"{one.quota_pct:.0f} %", f"{one.share_pct:.1f}",
            f"{one.share_pct - one.quota_pct:+.1f}", f"{one.latency_ms:,.1f}", f"{one.law_ms:,.1f}",
            f"{100 * (one.latency_ms / one.law_ms - 1):+.1f}", f"{one.debt_ms:.1f}",
        )  # fmt: skip
    console().print(shown)


def show_networks(rows: Sequence[Network]) -> None:
    shown = table("fastest, ms", "chosen", "whole", "chain", "a cut", "equal", left=(0, 1))
    for one in rows:
        a_cut = (one.chain_ms - one.whole_ms) / max(one.parts - 1, 1)
        shown.add_row(
            one.name, one.chosen, f"{one.whole_ms:.1f}", f"{one.chain_ms:.1f}", f"{a_cut:+.2f}", one.outputs
        )
    console().print(shown)
    show_laws([one.law for one in rows], "networks at 50 %")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of each loop")
    parser.add_argument("--networks", default="resnet50,squeezenet,densenet121", help="light networks")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    try:
        rows = laws(options.seconds)
        show_laws(rows, "sleeping device")
        figures = costs()
        shown = table("cost and reaction", "")
        for what, value in figures.items():
            shown.add_row(what, f"{value:.2f}")
        console().print(shown)
        networks = [network(name, options.seconds) for name in filter(None, options.networks.split(","))]
        show_networks(networks)
        loads = f"{before:.2f} before, {os.getloadavg()[0]:.2f} after, on {os.cpu_count()} cores"
        console().print(f"{platform.machine()}, python {platform.python_version()}; load {loads}")
        if options.json:
            content = {
                "version": 1, "load_1min": loads, "costs": figures,
                "laws": [asdict(one) for one in rows], "networks": [asdict(one) for one in networks],
            }  # fmt: skip
            with atomic_path(options.json) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    except RappError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
