"""Fixtures that more than one part of the tests needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples each time, and none that fails because the machine is busy.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def v100_dir() -> Path:
    """The public V100 profiles: a clone of KontonGu/RaPP with its data set, named by RAPP_V100_DIR."""
    folder = os.environ.get("RAPP_V100_DIR")
    if not folder:
        pytest.skip("RAPP_V100_DIR is not set: it names a folder with the public V100 profiles")
    return Path(folder)
