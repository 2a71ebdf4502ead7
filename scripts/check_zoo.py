"""Measure the operator graphs of `datasets/graphs` against the figures that torchvision publishes.

    python scripts/check_zoo.py            # print, and write datasets/graphs/torchvision_published.json
    python scripts/check_zoo.py resnet18   # print alone

torchvision publishes multiply-adds (`weights.meta["_ops"]`, called GFLOPS there) at the size that the weights
crop images to, and parameters. At 224 pixels the committed file is measured, at other sizes one that is
exported in memory; this takes ten minutes. The tests compare with the written figures, so that they need no
torchvision.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import export_zoo
import torch
import torchvision
from torchvision import models

from rapp.fileio import atomic_path
from rapp.graph import OperatorGraph

PUBLISHED = export_zoo.FOLDER / "torchvision_published.json"


def measure(names: list[str]) -> list[dict[str, Any]]:
    """One row a network and input size."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for name in names:
        for weights in models.get_model_weights(name):
            (size,) = weights.transforms().crop_size
            key = (name, size)
            if key in rows:
                rows[key]["weights"].append(weights.name)
                continue
            source = export_zoo.FOLDER / f"{name}.onnx" if size == 224 else export_zoo.export(name, size)
            graph = OperatorGraph.from_onnx(source)
            rows[key] = {
                "network": name,
                "weights": [weights.name],
                "size_px": size,
                "published_gmacs": weights.meta["_ops"],
                "measured_gmacs": round(graph.macs(1) / 1e9, 6),
                "published_params": weights.meta["num_params"],
                "measured_params": graph.params,
            }
            ratio = rows[key]["measured_gmacs"] / weights.meta["_ops"] - 1
            more = graph.params - weights.meta["num_params"]
            print(f"{name:22} {size:4} px  multiply-adds {ratio:+8.3%}  parameters {more:+d}", flush=True)
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="networks to measure; default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(options.names or export_zoo.network_names(extras=True))
    if not options.names:
        content = {"torchvision": torchvision.__version__.partition("+")[0], "rows": rows}
        with atomic_path(PUBLISHED) as path:
            path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
