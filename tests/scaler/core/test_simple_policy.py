"""The reference policy under the contract."""

from __future__ import annotations

import pytest

from scaler.policies.base import Policy
from scaler.testing import PolicyContract
from scaler.testing.simple_policy import SimplePolicy


class TestSimplePolicy(PolicyContract):
    @pytest.fixture
    def policy(self) -> Policy:
        return SimplePolicy()
