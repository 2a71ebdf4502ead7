"""`Hybrid`: the contract of policies."""

from __future__ import annotations

import pytest

from scaler.policies.base import Policy
from scaler.policies.hybrid import Hybrid
from scaler.testing import PolicyContract


class TestContract(PolicyContract):
    """A constant demand is answered at once; as it becomes known, what was kept ready beyond it is given back."""

    settle_ticks = 100

    @pytest.fixture
    def policy(self) -> Policy:
        return Hybrid()
