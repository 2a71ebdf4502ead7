"""Try RaPP on a physical GPU, and write one report of it.

    scripts/gpu_acceptance.sh cuda:0 --out gpu-acceptance

Writes FOLDER/report.md, report.json and what the steps left (the profile table, answers of nvidia-smi), and
packs them as FOLDER.tar.gz. The report holds versions, the GPU's UUID and paths of this machine, no more.
Exit code: 0: every step did; 1: some did not, named on the last line; 2: nothing could be tried.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
from gpu_acceptance_bench import Bench, CheckFailed, Facts
from gpu_acceptance_campaign import doctor, machine, sweep
from gpu_acceptance_sessions import (
    after_a_kill,
    gate_share,
    launching,
    out_of_memory,
    quota_library,
    side_by_side,
)
from rich.console import Console

from rapp.errors import RappError

NETWORK = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"
"""ResNet-50 as published, weights constant; ships with the package onnx."""

STEPS: Mapping[str, Callable[[Bench], Facts]] = {
    "machine": machine,
    "doctor": doctor,
    "sweep": sweep,
    "launching": launching,
    "gate": gate_share,
    "quota library": quota_library,
    "side by side": side_by_side,
    "out of memory": out_of_memory,
    "after a kill": after_a_kill,
}


@dataclass
class Result:
    """How a step ended: `ok`, `failed`, or `skipped` with the reason in `said`."""

    name: str
    state: str
    said: str
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    trace: str | None = None


def main() -> None:
    """Run all steps, then write the report."""
    options = _options()
    console = Console(highlight=False, emoji=False)
    folder: Path = options.out
    if folder.exists():
        console.print(f"{folder} exists: name another folder with --out")
        sys.exit(2)
    folder.mkdir(parents=True)
    bench = Bench(options.device, options.network, folder, options.quick)
    results = []
    try:
        for name in options.only:
            console.print(f"[bold]{name}[/bold] ...")
            result = _run(name, STEPS[name], bench)
            results.append(result)
            console.print(f"  {result.state} in {result.seconds:.0f} s: {result.said}", markup=False)
    finally:
        # Also after Ctrl-C: what was found so far is worth sending.
        packed = _write(folder, options, results)
    console.print(f"\n{folder / 'report.md'}\n{packed}: please send this file in", markup=False)
    failed = [result.name for result in results if result.state == "failed"]
    if failed:
        console.print(f"failed: {', '.join(failed)}", style="bold red")
    sys.exit(1 if failed else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("device", nargs="?", default="cuda:0", help="cuda:INDEX or cuda:UUID, default cuda:0")
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    parser.add_argument("--out", type=Path, default=Path(f"gpu-acceptance-{stamp}"), help="folder to make")
    parser.add_argument("--network", type=Path, default=NETWORK, help="an ONNX file; default light_resnet50")
    parser.add_argument("--only", type=_steps, default=list(STEPS), help=f"some of: {', '.join(STEPS)}")
    parser.add_argument("--quick", action="store_true", help="few samples: to try the script, not the GPU")
    return parser.parse_args()


def _steps(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in STEPS]:
        raise argparse.ArgumentTypeError(f"no step {', '.join(unknown)} among {', '.join(STEPS)}")
    return names


def _run(name: str, step: Callable[[Bench], Facts], bench: Bench) -> Result:
    begun_s = time.monotonic()
    trace = None
    try:
        facts = dict(step(bench))
        state = "skipped" if facts.pop("skipped", False) else "ok"
        said = str(facts.pop("said"))
    except CheckFailed as error:
        state, said, facts = "failed", str(error), dict(error.facts)
    except RappError as error:
        state, said, facts = "failed", str(error), {}
    except Exception as error:  # a bug is a finding too, and the other steps are worth their time
        state, said, facts = "failed", f"{type(error).__name__}: {error}", {}
        trace = traceback.format_exc()
    return Result(name, state, " ".join(said.split()), time.monotonic() - begun_s, facts, trace)


def _write(folder: Path, options: argparse.Namespace, results: list[Result]) -> Path:
    content = {
        "version": 1,
        "device": options.device,
        "network": options.network.name,
        "quick": options.quick,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "steps": [asdict(result) for result in results],
    }
    (folder / "report.json").write_text(json.dumps(content, indent=2, default=str) + "\n")
    (folder / "report.md").write_text(_markdown(content))
    packed = folder.with_name(f"{folder.name}.tar.gz")
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return packed


def _markdown(content: Mapping[str, Any]) -> str:
    lines = [
        f"# RaPP on {content['device']}",
        "",
        f"Network {content['network']}, finished {content['finished_at']}"
        + (", `--quick`: the figures are from few samples." if content["quick"] else "."),
        "",
        "| step | result | seconds | found |",
        "|---|---|---|---|",
    ]
    for step in content["steps"]:
        said = step["said"].replace("|", "\\|")
        lines.append(f"| {step['name']} | {step['state']} | {step['seconds']:.0f} | {said} |")
    for step in content["steps"]:
        if step["facts"] or step["trace"]:
            lines += ["", f"## {step['name']}", ""]
        if step["facts"]:
            lines += ["```json", json.dumps(step["facts"], indent=2, default=str), "```"]
        if step["trace"]:
            lines += ["```", step["trace"].rstrip(), "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
