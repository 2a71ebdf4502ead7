"""Tests that any implementation of the scaler's protocols passes.

    from scaler.testing import ForecasterContract

    class TestMine(ForecasterContract):
        @pytest.fixture
        def forecaster(self):
            return MyForecaster()

pytest collects the subclass. Needs the extra `dev` (pytest, hypothesis).
"""

from __future__ import annotations

from scaler.testing.backend import BackendContract
from scaler.testing.forecaster import ForecasterContract
from scaler.testing.lease import LeaseContract
from scaler.testing.policy import PolicyContract

__all__ = ["BackendContract", "ForecasterContract", "LeaseContract", "PolicyContract"]
