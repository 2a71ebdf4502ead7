"""Fixtures of a GPU that is not there."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))

from gpu_fixtures import claims, fake_gpus, fake_mps, fake_runtime, stub_driver

__all__ = ["claims", "fake_gpus", "fake_mps", "fake_runtime", "stub_driver"]
