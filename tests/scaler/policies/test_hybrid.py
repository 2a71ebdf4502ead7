"""`Hybrid`: the contract of policies."""

from __future__ import annotations

import pytest

from scaler.policies.base import Policy
from scaler.policies.hybrid import Hybrid
from scaler.testing import PolicyContract


class TestContract(PolicyContract):
    """A constant demand is answered at once; what is ready beyond it is given back as it becomes known."""

    settle_ticks = 100

    @pytest.fixture
    def policy(self) -> Policy:
        return Hybrid()
