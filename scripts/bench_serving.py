"""`rapp serve` beside LitServe and Ray Serve on this machine's CPU, and how long it holds out.

    python scripts/bench_serving.py --work /tmp/bench [--repetitions 5] [--write docs/serving.md]
    python scripts/bench_serving.py --work /tmp/bench --only overhead
    python scripts/bench_serving.py --work /tmp/bench --soak-minutes 30

Each server runs one ONNX Runtime session of one thread, with batches of at most --batch and no wait for them
to fill, and gets the same tensors (1 x 3 x 224 x 224, float32, in binary) from the same generator. On one
core a batch of four takes as long as four requests, so that 1 is the default. Peers are installed from PyPI
into venvs under --work, with the onnxruntime and numpy that RaPP has here; LitServe uses its faster queue. In
every repetition the servers take turns, first one first, then another: what else happens on the machine meets
all of them, and ratios are taken within a repetition.

    saturation   answers a second while 16 requests are always on the way
    own 70 %     latencies at 70 % of the server's own saturation in this repetition, Poisson arrivals
    same rate    latencies at 70 % of the saturation of the slowest in this repetition
    overhead     an Identity of 1 KB at 500 rps, even arrivals

What was measured is appended to results.jsonl in --work; tables are made of everything there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from bench_serving_measure import latency, machine, saturation
from bench_serving_servers import SERVERS, Case, running, version_of
from bench_serving_soak import soak
from bench_serving_tables import print_tables, write_tables
from onnx import TensorProto, helper

from rapp.graph import with_batch
from scaler.trace import ArrivalProcess

NETWORKS = ("light_squeezenet", "light_resnet50")
SHARE = 0.7
OVERHEAD_RPS = 500.0
SOAK_BATCH = 4
"""Which the soak changes, too."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--saturation-s", type=float, default=8.0)
    parser.add_argument("--latency-s", type=float, default=15.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--ahead", choices=("nice", "rr"), help="before other programs while it measures (root); rr: SCHED_RR"
    )
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--only", choices=("peers", "overhead", "tables"))
    parser.add_argument("--soak-minutes", type=float)
    parser.add_argument("--write", type=Path, help="put the tables between the markers of this file")
    given = parser.parse_args()
    # The servers are to end with this program, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given.work = given.work.absolute()
    given.work.mkdir(parents=True, exist_ok=True)
    results = given.work / "results.jsonl"
    if given.soak_minutes is not None:
        case = replace(case_of(NETWORKS[0], given), batch=SOAK_BATCH)
        append(results, soak(case, given.work, given.soak_minutes, given.ahead))
    elif given.only != "tables":
        for number in range(given.repetitions):
            if given.only != "overhead":
                for network in given.networks.split(","):
                    append(results, peers(case_of(network, given), given, number))
            if given.only != "peers":
                append(results, overhead(given))
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    print_tables(rows)
    if given.write is not None:
        write_tables(rows, given.write)


def peers(case: Case, given: argparse.Namespace, repetition: int) -> list[dict[str, Any]]:
    """One repetition of all servers with one network."""
    names = given.servers.split(",")
    turn = names[repetition % len(names) :] + names[: repetition % len(names)]
    rows: dict[str, dict[str, Any]] = {}
    for name in turn:
        row = rows[name] = row_of("peers", name, case.name, given) | machine()
        with running(name, case, given.work, given.ahead) as server:
            row["saturation"] = saturation(server, case.name, given.saturation_s)
            rate_rps = SHARE * row["saturation"]["rps"]
            row["own"] = latency(server, case.name, rate_rps, given.latency_s, repetition)
        print(f"{case.name}, {name}: {row['saturation']['rps']:.1f} rps", flush=True)
    rate_rps = SHARE * min(row["saturation"]["rps"] for row in rows.values())
    for name in turn:
        with running(name, case, given.work, given.ahead) as server:
            rows[name]["same"] = latency(server, case.name, rate_rps, given.latency_s, repetition)
    return list(rows.values())


def overhead(given: argparse.Namespace) -> list[dict[str, Any]]:
    """The gateway alone: a network that does nothing."""
    row = row_of("overhead", "rapp", "identity", given) | machine()
    with running("rapp", case_of("identity", given), given.work, given.ahead) as server:
        row["own"] = latency(server, "identity", OVERHEAD_RPS, given.latency_s, 0, ArrivalProcess.EVEN)
    return [row]


def case_of(network: str, given: argparse.Namespace) -> Case:
    """A network, with its files in --work."""
    file = given.work / f"{network}.onnx"
    if network == "identity":
        onnx.save(identity(), file)
    else:
        light = Path(onnx.__file__).parent / "backend/test/data/light"
        shutil.copyfile(light / f"{network}.onnx", file)
    open_file = given.work / f"{network}.open.onnx"
    onnx.save(with_batch(file, None), open_file)
    shape = (1, 256) if network == "identity" else (1, 3, 224, 224)
    return Case(network, file, open_file, shape, given.batch)


def identity() -> onnx.ModelProto:
    """1 KB in, the same out."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 256]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def row_of(kind: str, server: str, network: str, given: argparse.Namespace) -> dict[str, Any]:
    """What is common to all results."""
    return {
        "kind": kind, "server": server, "network": network, "batch": given.batch,
        "ahead": given.ahead, "version": version_of(server, given.work),
    }  # fmt: skip


def append(results: Path, rows: list[dict[str, Any]]) -> None:
    """Keep what was measured, whatever comes after."""
    with results.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
