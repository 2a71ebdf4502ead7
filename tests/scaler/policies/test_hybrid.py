"""`Hybrid`: the contract of policies."""

from __future__ import annotations

import pytest

from scaler.policies.base import Policy
from scaler.policies.hybrid import Hybrid
from scaler.testing import PolicyContract


class TestContract(PolicyContract):
    """It passes."""

    @pytest.fixture
    def policy(self) -> Policy:
        return Hybrid()
