"""The committed split files."""

from __future__ import annotations

from pathlib import Path

from rapp.profiles import Split

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "datasets" / "splits"
COMMITTED = ("held-columns", "random-rows", "unseen-family", "unseen-network")


def committed(name: str) -> Split:
    return Split.load(FOLDER / f"{name}.json")
