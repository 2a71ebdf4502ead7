"""Policies against each other: cost and violations over the cells that docs/scaling.md reports.

    python scripts/bench_scaler.py --workloads workloads.json --traces DIR --protocols out/protocols \
        --out out/scaler [--jobs 2] [--write docs/scaling.md]

Needs the public V100 profiles (RAPP_V100_DIR), HAS-GPU's two workloads (a JSON of rates per second) and the
two public traces. Every cell is replayed by every policy at first over a few seeds, then over as many as
give --requests requests. A policy's part of a cell is one file, whole or not there; a second start goes on,
and replays what was made by other sources, but for the policies of --keep. --again NAME replays a policy
whatever made it; --only PREFIX takes the cells whose name begins so; --tables writes what is there, and runs
nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench_scaler_cells import POLICIES, cells
from bench_scaler_checks import run_checks
from bench_scaler_run import Places, check_policies, missing, run_part
from bench_scaler_tables import write_results
from bench_scaler_times import ROOT, make_times

from rapp.errors import RappError


def main() -> None:
    """Run what is missing, and write the tables."""
    given = arguments()
    source = os.environ.get("RAPP_V100_DIR")
    if not source:
        sys.exit("set RAPP_V100_DIR to a clone of KontonGu/RaPP: the replays need its V100 profiles")
    places = Places(given.out, given.workloads, given.traces, given.requests)
    make_times(places.times, given.protocols, source)
    again = [] if given.again is None else given.again.split(",")
    check_policies(again)
    if not given.tables:
        run_all(places, given, again)
        if not given.only and given.policies == ",".join(POLICIES):
            run_checks(places)
    write_results(places, given.results, given.write)


def run_all(places: Places, given: argparse.Namespace, again: list[str]) -> None:
    """All parts that are missing, first parts first."""
    chosen = given.policies.split(",")
    check_policies(chosen)
    for policy in again:
        for cell in cells():
            for part in (0, 1):
                if cell.key.startswith(given.only):
                    places.file(cell, policy, part).unlink(missing_ok=True)
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn"), initializer=_calm) as pool:
        for part in range(given.parts):
            wanted = [
                (cell, lacks)
                for cell in cells()
                if cell.key.startswith(given.only)
                and (
                    lacks := [
                        one for one in missing(cell, part, places, given.keep.split(",")) if one in chosen
                    ]
                )
            ]
            print(f"part {part}: {len(wanted)} cells to run", flush=True)
            running: list[Any] = [pool.submit(run_part, cell, part, lacks, places) for cell, lacks in wanted]
            for number, done in enumerate(as_completed(running), 1):
                print(f"{number}/{len(running)}  {done.result()}", flush=True)


def _calm() -> None:
    os.nice(5)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", type=Path, required=True, help="JSON with standard and stress")
    parser.add_argument("--traces", type=Path, required=True, help="folder of the two public traces")
    parser.add_argument("--results", type=Path, help="measured results of HAS-GPU's artifact, CSV")
    parser.add_argument("--protocols", type=Path, default=Path("out/protocols"))
    parser.add_argument("--out", type=Path, default=Path("out/scaler"))
    parser.add_argument("--jobs", type=int, default=2, help="parts at once, each on one core")
    parser.add_argument("--requests", type=int, default=100_000, help="of a cell, over all seeds")
    parser.add_argument("--parts", type=int, default=2, choices=(1, 2), help="1: the first seeds alone")
    parser.add_argument("--policies", default=",".join(POLICIES), help="those to replay: a,b")
    parser.add_argument("--again", help="policies to replay anew: a,b")
    parser.add_argument("--keep", default="", help="policies whose results of other sources stay: a,b")
    parser.add_argument("--only", default="", help="cells whose name begins so")
    parser.add_argument("--tables", action="store_true", help="run nothing, write what is there")
    parser.add_argument("--write", type=Path, help=f"document, e.g. {ROOT.name}/docs/scaling.md")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except RappError as error:
        sys.exit(f"{error}")
