"""Check that exported ONNX files answer as the torch model does, over every committed operator graph.

    python scripts/check_export.py                an untrained model, exported here
    python scripts/check_export.py RUN            the artifact of a run against the run's own checkpoints
    python scripts/check_export.py models/v100    an artifact alone: its encoder must answer for every graph,
                                                  but no torch encoder is there to compare it with

Every graph of datasets/graphs, one without edges and one of a single operator go through the encoder; 1,000
random configurations, within the knots and beyond them, through the decoder. Prints the largest relative
difference of a time, and ends with 1 where it is more than 1e-4 or an answer is no number.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapp.artifact import Artifact
from rapp.errors import RappError
from rapp.evaluation.source import artifact_folder
from rapp.graph import OperatorGraph
from rapp.graph.features import GraphFeatures
from rapp.knots import Knots
from rapp.model.decoder import Decoder
from rapp.model.encoder import Encoder
from rapp.model.ensemble import EncoderEnsemble
from rapp.model.export import export_decoder, export_encoder
from rapp.runtime import cpu_session
from rapp.training.checkpoint import finished_weights
from rapp.types import ResourceGrid

GRAPHS = Path(__file__).parent.parent / "datasets" / "graphs"
ALIKE = 1e-4
CONFIGURATIONS = 1000


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", nargs="?", type=Path, help="a run or an artifact; none: untrained")
    parser.add_argument("--members", type=int, default=2, help="encoders of the untrained ensemble")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    if options.artifact is None:
        grid = ResourceGrid()
        knots = Knots.around(grid.batch, grid.sm_pct, grid.quota_pct)
        torch.manual_seed(0)
        ensemble = EncoderEnsemble([Encoder(knots) for _ in range(options.members)]).eval()
        encoder, decoder = export_encoder(ensemble), export_decoder(knots)
    else:
        artifact = Artifact.load(artifact_folder(options.artifact))
        knots, encoder, decoder = artifact.knots, artifact.encoder, artifact.decoder
        ensemble = _of_run(options.artifact, knots)
    print(f"ready after {time.monotonic() - begun:.0f} s", flush=True)
    worst = [_decoder(decoder, knots), *_encoders(encoder, ensemble)]
    print(f"largest relative difference: {max(worst):.2e} (allowed: {ALIKE:g})")
    return int(not max(worst) <= ALIKE)


def _of_run(folder: Path, knots: Knots) -> EncoderEnsemble | None:
    """The encoders of a run's checkpoints, on the artifact's knots; None where there are none."""
    run = folder if (folder / "state").is_dir() else folder.parent
    files = sorted((run / "state").glob("encoder-*.pt"))
    members = []
    for file in files:
        weights = dict(finished_weights(file))
        blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
        member = Encoder(knots, weights["embed.weight"].shape[0], len(blocks))
        # Checkpoints have the trained axes, the export all knots.
        weights |= {name: member.state_dict()[name] for name in ("device_law.batch", "device_law.sm")}
        member.load_state_dict(weights)
        members.append(member)
    return EncoderEnsemble(members).eval() if members else None


def _encoders(content: bytes, ensemble: EncoderEnsemble | None) -> list[float]:
    """Difference on each graph; 0 where all answers are numbers and there is nothing to compare with."""
    session, differences = cpu_session(content), []
    for name, features in _graphs():
        feed = {"operators": features.operators, "costs": features.costs, "edges": features.edges}
        found = session.run(["log_device", "log_host"], feed)
        if not all(np.isfinite(answer).all() for answer in found):
            print(f"{name}: an answer is no number")
            differences.append(np.inf)
            continue
        if ensemble is None:
            differences.append(0.0)
            continue
        with torch.no_grad():
            wanted = ensemble(*(torch.from_numpy(feed[key]) for key in ("operators", "costs", "edges")))
        differences.append(max(_relative(f, w) for f, w in zip(found, wanted, strict=True)))
    compared = f"at most {max(differences):.2e}" if ensemble is not None else "all answered, none compared"
    print(f"encoder, {len(differences)} graphs: {compared}", flush=True)
    return differences


def _graphs() -> list[tuple[str, GraphFeatures]]:
    files = sorted(GRAPHS.glob("*.onnx"))
    if not files:
        raise RappError(f"{GRAPHS}: holds no graph")
    made = [(file.stem, GraphFeatures.of(OperatorGraph.from_onnx(file))) for file in files]
    first = made[0][1]
    none = first.edges[:, :0]
    return [
        *made,
        ("a graph without edges", GraphFeatures(first.operators, first.costs, none)),
        ("one operator", GraphFeatures(first.operators[:1], first.costs[:1], none)),
    ]


def _decoder(content: bytes, knots: Knots) -> float:
    rng, count = np.random.default_rng(0), CONFIGURATIONS
    b, s, q = knots.shape
    below = knots.quota_pct[0] / 4
    feed = {
        "log_latency": rng.normal(2, 1, (b, s, q)), "log_device": rng.normal(1, 1, (b, s)),
        "log_host": rng.normal(1, 1, (b, s)), "deviation": rng.uniform(0.01, 0.5, (b, s, q)),
        "batch": np.exp(rng.uniform(0, np.log(2 * knots.batch[-1]), count)),
        "sm_pct": rng.uniform(0.3, 100, count), "quota_pct": rng.uniform(below, 100, count),
        "gpu_time": rng.integers(0, 2, count), "credit_ms": np.array(2.5), "interval_factor": np.array(1.8),
    }  # fmt: skip
    arrays: dict[str, Any] = {name: value.astype(np.float32) for name, value in feed.items()}
    with torch.no_grad():
        wanted = Decoder(knots)(*(torch.from_numpy(value) for value in arrays.values()))
    found = cpu_session(content).run(None, arrays)
    difference = max(
        float(np.abs(np.float64(f) / w.double().numpy() - 1).max())
        for f, w in zip(found, wanted, strict=True)
    )
    print(f"decoder, {count} configurations: at most {difference:.2e}", flush=True)
    return difference


def _relative(found: np.ndarray, wanted: torch.Tensor) -> float:
    """Largest relative difference of times whose logarithms are given."""
    return float(np.abs(np.expm1(found.astype(np.float64) - wanted.double().numpy())).max())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RappError as error:
        sys.exit(f"error: {error}")
