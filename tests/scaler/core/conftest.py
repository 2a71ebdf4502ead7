"""A core with the reference policy, and what it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scaler.core.settings import Settings
from scaler.core.step import Core
from scaler.forecast.last_value import LastValue
from scaler.functions import FunctionSpec
from scaler.policies.base import Policy
from scaler.testing.fleet import times_of
from scaler.testing.policy_loop import function
from scaler.testing.simple_policy import SimplePolicy


@pytest.fixture
def core_of() -> Callable[..., Core]:
    """`core_of(spec, ..., policy=..., **settings)`; without a spec one function `f`."""

    def made(*specs: FunctionSpec, policy: Policy | None = None, **given: Any) -> Core:
        listed = specs or (function(),)
        times = {spec.name: times_of(spec) for spec in listed}
        return Core(listed, times, LastValue(), policy or SimplePolicy(), Settings(**given))

    return made
