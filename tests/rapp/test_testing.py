"""The contract of latency models accepts a right one, and tells what is wrong with others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from rapp.testing import ClosedFormModel, LatencyModelContract
from rapp.types import QuotaKind, ResourceGrid


class TestClosedForm(LatencyModelContract):
    @pytest.fixture
    def model(self):
        return ClosedFormModel()


class TestPredictorOfTheTests(LatencyModelContract):
    @pytest.fixture
    def model(self, predictor, graphs):
        return predictor().network(graphs / "beta.onnx")


@dataclass(frozen=True)
class Spoilt(ClosedFormModel):
    """A right model, but for one fault."""

    fault: str = ""

    def latency_grid(self, grid=None, *, quota_kind=None, idle_ms=None):
        if self.fault == "any pause":
            idle_ms = 0.0
        found = super().latency_grid(grid, quota_kind=quota_kind, idle_ms=idle_ms)
        if self.fault == "low above mean":
            return replace(found, low_ms=found.mean_ms * 1.01)
        if self.fault == "zero":
            return replace(found, low_ms=found.mean_ms * 0)
        if self.fault == "grows with quota":
            slower = found.mean_ms * (1 + 0.001 * np.asarray(found.grid.quota_pct)[:, None])
            return replace(found, mean_ms=slower, high_ms=2 * slower)
        if self.fault == "sorted axes":
            order = np.argsort(found.grid.sm_pct)
            return replace(found, mean_ms=found.mean_ms[order], high_ms=found.high_ms[order])
        if self.fault == "flat":
            return replace(found, host_ms=found.host_ms.ravel())
        if self.fault == "below device":
            return replace(found, device_ms=found.device_ms * 1.5)
        if self.fault == "device by quota":
            return replace(found, device_ms=found.device_ms / np.asarray(found.grid.quota_pct)[:, None])
        return found


INTERVAL = "test_an_interval_holds_the_mean_and_all_is_positive"
QUOTA = "test_more_quota_is_never_slower"
GRID = "test_a_grid_holds_the_single_answers_in_the_order_of_its_axes"
FULL = "test_gpu_time_at_full_quota_is_not_below_the_device_time"
PARTS = "test_device_time_and_host_time_do_not_depend_on_the_quota_or_its_kind"
PAUSE = "test_a_pause_that_is_none_is_a_typed_error"
AXES = {"sms": [50.0, 20.0], "quotas": [10.0, 100.0], "places": [0, 3]}

# A fault, the test that finds it, and an example of hypothesis' that shows it.
FAULTS = {
    "low above mean": (INTERVAL, {"sm": 50.0, "quota": 50.0, "place": 0}),
    "zero": (INTERVAL, {"sm": 50.0, "quota": 50.0, "place": 0}),
    "grows with quota": (QUOTA, {"sm": 10.0, "first": 100.0, "second": 99.0, "place": 0}),
    "sorted axes": (GRID, AXES),
    "flat": (GRID, AXES),
    "below device": (FULL, {"sm": 10.0, "place": 0, "idle_ms": None}),
    "device by quota": (PARTS, {}),
    "any pause": (PAUSE, {"idle_ms": -1.0}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contract_finds_a_fault(fault):
    name, example = FAULTS[fault]
    test = getattr(LatencyModelContract, name)
    inner = test.hypothesis.inner_test if hasattr(test, "hypothesis") else test
    inner(LatencyModelContract(), ClosedFormModel(), **example)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        inner(LatencyModelContract(), Spoilt(fault=fault), **example)


def test_the_closed_form_is_what_its_docstring_says():
    model = ClosedFormModel(work_ms=4, launch_ms=6)
    grid = ResourceGrid([50], [25, 100], [1, 3])
    answer = model.latency_grid(grid, quota_kind=QuotaKind.GPU_TIME, idle_ms=5)
    assert answer.device_ms[0, 0].tolist() == [8, 16]
    assert answer.mean_ms[0].tolist() == [[8 / 0.25 - 5, 16 / 0.25 - 5], [8, 16]]
    answer = model.latency_grid(grid, quota_kind=QuotaKind.LAUNCH_GATE)
    assert answer.mean_ms[0].tolist() == [[24, 24], [8, 16]]
