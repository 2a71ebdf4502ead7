"""Run the evaluation protocols: train on every fold of every split, score what it has not seen.

    python scripts/protocols.py --out out/protocols [--only unseen-network,ablation] [--jobs 2]

Each fold is one JSON file in --out; a fold that is there is not run again, so the command resumes.
`scripts/protocol_tables.py` makes docs/accuracy.md from them. Needs the V100 profiles: RAPP_V100_DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from rapp.fileio import atomic_path
from rapp.model.encoder import Variant
from rapp.profiles import ProfileTable, Split, import_has_gpu
from rapp.training.dataset import load_training_set
from rapp.training.encoder_fit import EncoderSettings
from rapp.training.held_out import score_networks, score_rows
from rapp.training.pipeline import train_model

ROOT = Path(__file__).parent.parent
POINTS = (0, 1, 3, 5, 8, 11)
# The same budget for each variant: four encoders of 80 steps, on the first folds.
ABLATION_FOLDS = (0, 1)
VARIANTS: tuple[Variant, ...] = ("rapp", "chain", "no-messages", "mlp-head", "no-graph")


@dataclass(frozen=True)
class Job:
    """One fold of one protocol."""

    protocol: str
    split: str
    fold: int
    settings: EncoderSettings
    members: int
    rule: bool = False
    prototypes: bool = True

    @property
    def file(self) -> str:
        return f"{self.protocol}-{self.fold}.json"


def jobs() -> list[Job]:
    """All folds, the headline first."""
    full = EncoderSettings(steps=250)
    known = EncoderSettings(steps=100)
    listed = [Job("unseen-network", "unseen-network", f, full, 4) for f in range(8)]
    listed += [Job("random-rows", "random-rows", f, known, 2) for f in range(3)]
    listed += [Job("unseen-family", "unseen-family", f, full, 4) for f in range(8)]
    for fold in ABLATION_FOLDS:
        for variant in VARIANTS:
            short = EncoderSettings(steps=80, variant=variant)
            listed.append(Job(f"ablation-{variant}", "unseen-network", fold, short, 4))
    listed += [Job("held-columns", "held-columns", f, known, 2) for f in range(3)]
    listed += [Job("unseen-network-rule", "unseen-network", f, full, 4, rule=True) for f in range(8)]
    listed += [
        Job("ablation-no-prototypes", "unseen-network", f, full, 4, prototypes=False) for f in range(8)
    ]
    return listed


def run(job: Job, table_file: Path, out: Path) -> float:
    """Train and score one fold; returns the seconds it took."""
    torch.set_num_threads(1)
    begun = time.monotonic()
    table = ProfileTable.read(table_file).ok()
    split = Split.load(ROOT / "datasets" / "splits" / f"{job.split}.json")
    train, _, test = split.select(table, job.fold)
    everything = load_training_set(table, ROOT / "datasets" / "graphs")
    if split.kind == "rows":
        learn = load_training_set(table.where(train), ROOT / "datasets" / "graphs", knots=everything.knots)
    else:
        learn = everything.only(sorted(set(table.where(train).networks())))
    kind = f"{job.settings.variant}-{job.members}-{job.settings.steps}"
    state = out / "state" / f"{job.split}-{job.fold}-{kind}"
    # A fold that goes on from checkpoints says nothing of how long training takes.
    resumed = state.exists()
    trained = time.monotonic()
    model = train_model(
        learn, job.settings, job.fold, members=job.members, state=state, fit_cache=out / "fits",
        known_factor=split.kind == "rows",
    )  # fmt: skip
    trained = time.monotonic() - trained
    if not job.prototypes:
        model = replace(model, structure=replace(model.structure, prototypes=model.structure.prototypes[:0]))
    names = sorted(set(table.where(test).networks()))
    if split.kind == "rows":
        held = load_training_set(table.where(test), ROOT / "datasets" / "graphs", knots=everything.knots)
        networks = score_rows(model, held)
    else:
        networks = score_networks(model, everything, names, POINTS, job.rule)
    result: dict[str, Any] = {
        "protocol": job.protocol, "fold": job.fold, "train_networks": len(learn.names),
        "train_rows": learn.rows, "train_seconds": None if resumed else round(trained, 1),
        "steps": job.settings.steps, "members": job.members,
        "interval_factors": model.interval_factors, "rows_hash": everything.rows_hash, "networks": networks,
    }  # fmt: skip
    with atomic_path(out / job.file) as temporary:
        temporary.write_text(json.dumps(result))
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/protocols"))
    parser.add_argument("--only", help="protocols to run, by prefix: a,b")
    parser.add_argument("--jobs", type=int, default=2, help="folds at once, each on one core")
    options = parser.parse_args()
    source = os.environ.get("RAPP_V100_DIR")
    if not source:
        sys.exit("set RAPP_V100_DIR to a clone of KontonGu/RaPP: the protocols need its V100 profiles")
    options.out.mkdir(parents=True, exist_ok=True)
    table_file = options.out / "v100.parquet"
    if not table_file.exists():
        import_has_gpu(source, ROOT / "datasets" / "graphs").write(table_file)
    wanted = [j for j in jobs() if not options.only or j.protocol.startswith(tuple(options.only.split(",")))]
    missing = [job for job in wanted if not (options.out / job.file).exists()]
    print(f"{len(wanted)} folds, {len(wanted) - len(missing)} done before", flush=True)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, job, table_file, options.out): job for job in missing}
        for future in as_completed(running):
            print(f"{running[future].file:32s} {future.result():6.0f} s", flush=True)


if __name__ == "__main__":
    main()
