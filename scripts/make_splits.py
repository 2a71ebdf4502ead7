"""Write datasets/splits/*.json. Run it from the root of the checkout: it gives the same bytes each time.

    python scripts/make_splits.py [--out datasets/splits] [--check]

The order within a shuffle is that of SHA-256("<seed>|<name>"): no random generator whose sequence another
Python version might change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from rapp.profiles.splits import Split

SEED = 0
FOLDS = 8

# The 69 torchvision classifiers of the public V100 profiles, by family. ResNet, ResNeXt and Wide ResNet
# are one family: resnet101 and wide_resnet101_2 have the same operators in the same order.
REGNET_SIZES = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")
FAMILIES = {
    "alexnet": "alexnet",
    "convnext": "convnext_tiny convnext_small convnext_base convnext_large",
    "densenet": "densenet121 densenet161 densenet169 densenet201",
    "efficientnet": " ".join(f"efficientnet_b{i}" for i in range(8))
    + " efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l",
    "inception": "googlenet inception_v3",
    "maxvit": "maxvit_t",
    "mnasnet": "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3",
    "mobilenet": "mobilenet_v2 mobilenet_v3_small mobilenet_v3_large",
    "regnet": " ".join(f"regnet_{kind}_{size}" for kind in "xy" for size in REGNET_SIZES) + " regnet_y_128gf",
    "resnet": "resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d"
    " resnext101_64x4d wide_resnet50_2 wide_resnet101_2",
    "shufflenet": "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0",
    "squeezenet": "squeezenet1_0 squeezenet1_1",
    "vgg": "vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn",
}

# The project's own figures are computed on 57 of the 69. The folds are balanced over those, so these are
# dealt last.
NOT_IN_OUR_FIGURES = {
    "convnext_small", "densenet161", "efficientnet_b4", "efficientnet_v2_m", "inception_v3", "mnasnet0_75",
    "regnet_x_3_2gf", "regnet_y_16gf", "resnet101", "shufflenet_v2_x1_5", "vgg13_bn", "wide_resnet50_2",
}  # fmt: skip


def _place(name: str) -> str:
    return hashlib.sha256(f"{SEED}|{name}".encode()).hexdigest()


def _folds(groups: list[list[str]]) -> list[dict[str, list[str]]]:
    everything = {name for group in groups for name in group}
    return [{"train": sorted(everything - set(group)), "test": sorted(group)} for group in groups]


def unseen_network(families: dict[str, list[str]]) -> dict[str, Any]:
    """Deal family by family, shuffled within each, so that a fold has a network of most families."""
    dealt: list[str] = []
    for later in (False, True):
        for family in sorted(families, key=_place):
            names = sorted(families[family], key=_place)
            dealt += [name for name in names if (name in NOT_IN_OUR_FIGURES) is later]
    return {
        "name": "unseen-network",
        "kind": "network",
        "seed": SEED,
        "about": "8 folds over the networks. A test network may have relatives in training.",
        "folds": _folds([dealt[fold::FOLDS] for fold in range(FOLDS)]),
    }


def unseen_family(families: dict[str, list[str]]) -> dict[str, Any]:
    """Largest family first, each into the fold with the fewest networks (longest processing time rule)."""

    def size(names: list[str]) -> int:
        return len(set(names) - NOT_IN_OUR_FIGURES)

    groups: list[list[str]] = [[] for _ in range(FOLDS)]
    for family in sorted(families, key=lambda name: (-size(families[name]), _place(name))):
        min(groups, key=size).extend(families[family])
    return {
        "name": "unseen-family",
        "kind": "family",
        "seed": SEED,
        "about": "8 folds over families of networks. A test network has no relative in training.",
        "families": families,
        "folds": _folds(groups),
    }


def random_rows() -> dict[str, Any]:
    """The protocol of most papers on these data; a fold a seed."""
    fractions = {"train": 0.85, "validation": 0.10, "test": 0.05}
    return {
        "name": "random-rows",
        "kind": "rows",
        "about": "85/10/5 of the points by hash; fold i has seed i. Interpolation: a test point has measured"
        " neighbours on all sides.",
        "folds": [{"rule": "hash", "seed": seed, "fractions": fractions} for seed in (0, 1, 2)],
    }


def held_columns() -> dict[str, Any]:
    """SM partitions and quotas between others, one in each stretch of the axis; the largest batch."""
    held = {"sm_pct": [15.0, 35.0, 60.0, 85.0], "quota_pct": [30.0, 70.0], "batch": [8.0]}
    return {
        "name": "held-columns",
        "kind": "rows",
        "about": "Whole values of an axis: fold 0 SM partitions and fold 1 quotas between measured ones"
        " (interpolation), fold 2 the largest batch (extrapolation).",
        "folds": [{"rule": "columns", "column": column, "test": values} for column, values in held.items()],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("datasets/splits"), help="folder to write to")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    args = parser.parse_args()
    families = {family: names.split() for family, names in FAMILIES.items()}
    stale = []
    for split in (unseen_network(families), unseen_family(families), random_rows(), held_columns()):
        file = args.out / f"{split['name']}.json"
        split = {"version": 1, **split}
        Split.from_dict(split, file)
        text = json.dumps(split, indent=1) + "\n"
        if args.check:
            if not file.is_file() or file.read_text() != text:
                stale.append(str(file))
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    if stale:
        print(f"out of date: {', '.join(stale)}; run scripts/make_splits.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
