"""Tests that any implementation of RaPP's protocols passes, and a closed form to test their users with.

    from rapp.testing import LatencyModelContract

    class TestMine(LatencyModelContract):
        @pytest.fixture
        def model(self):
            return MyModel(...)

pytest collects the subclass. Needs the extra `dev` (pytest, hypothesis).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rapp.errors import MissingExtraError, RappError
from rapp.latency_model import LatencyModel
from rapp.types import (
    FloatArray,
    LatencyEstimate,
    LatencyGrid,
    QuotaKind,
    ResourceConfig,
    ResourceGrid,
)

try:
    import pytest
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "dev") from error

FIELDS = ("mean_ms", "low_ms", "high_ms", "device_ms", "host_ms")

# The fixture answers alike each time, so that examples may share it; the machines of tests are shared too.
_shared = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
_percent = st.integers(1, 100).map(float) | st.floats(0.5, 100)
_place = st.integers(0, 1_000)


class LatencyModelContract:
    """The contract of `rapp.latency_model.LatencyModel`. A subclass overrides the fixture `model`.

    `batches` and `quota_kinds` are what the model can be asked for: a network with a fixed batch has one.
    """

    batches: Sequence[int] = (1, 2, 3, 4, 8)
    quota_kinds: Sequence[QuotaKind] = tuple(QuotaKind)

    @pytest.fixture
    def model(self) -> LatencyModel:
        """The model under test."""
        raise NotImplementedError("a subclass of LatencyModelContract overrides the fixture `model`")

    @given(sm=_percent, quota=_percent, place=_place)
    @_shared
    def test_an_interval_holds_the_mean_and_all_is_positive(
        self, model: LatencyModel, sm: float, quota: float, place: int
    ) -> None:
        for kind in self.quota_kinds:
            answer = model.latency(ResourceConfig(sm, quota, self._batch(place)), quota_kind=kind)
            assert all(np.isfinite(getattr(answer, field)) for field in FIELDS), answer
            assert 0 < answer.low_ms <= answer.mean_ms <= answer.high_ms, answer
            assert answer.device_ms > 0, answer
            assert answer.host_ms > 0, answer

    @given(sm=_percent, first=_percent, second=_percent, place=_place)
    @_shared
    def test_more_quota_is_never_slower(
        self, model: LatencyModel, sm: float, first: float, second: float, place: int
    ) -> None:
        less, more = sorted((first, second))
        for kind in self.quota_kinds:
            slow, fast = (
                model.latency(ResourceConfig(sm, quota, self._batch(place)), quota_kind=kind).mean_ms
                for quota in (less, more)
            )
            assert fast <= slow * (1 + 1e-9), f"{kind}: {fast} ms at quota {more}, {slow} ms at {less}"

    @given(
        sms=st.lists(_percent, min_size=1, max_size=3, unique=True),
        quotas=st.lists(_percent, min_size=1, max_size=2, unique=True),
        places=st.lists(_place, min_size=1, max_size=2),
    )
    @_shared
    def test_a_grid_holds_the_single_answers_in_the_order_of_its_axes(
        self, model: LatencyModel, sms: list[float], quotas: list[float], places: list[int]
    ) -> None:
        grid = ResourceGrid(sms, quotas, list(dict.fromkeys(map(self._batch, places))))
        for kind in self.quota_kinds:
            answer = model.latency_grid(grid, quota_kind=kind)
            axes = (answer.grid.sm_pct, answer.grid.quota_pct, answer.grid.batch)
            assert list(map(list, axes)) == list(map(list, (grid.sm_pct, grid.quota_pct, grid.batch)))
            for field in (*FIELDS, "extrapolated"):
                values = getattr(answer, field)
                assert isinstance(values, np.ndarray), f"{field} is a {type(values).__name__}"
                assert values.shape == grid.shape, f"{field} has shape {values.shape}"
                alone = [getattr(model.latency(config, quota_kind=kind), field) for config in grid]
                np.testing.assert_allclose(values.ravel(), alone, rtol=1e-6, err_msg=f"{kind} {field}")
            assert answer.extrapolated.dtype == np.bool_

    @given(sm=_percent, place=_place, idle_ms=st.sampled_from((None, 0.0, 5.0)))
    @_shared
    def test_gpu_time_at_full_quota_is_not_below_the_device_time(
        self, model: LatencyModel, sm: float, place: int, idle_ms: float | None
    ) -> None:
        config = ResourceConfig(sm, 100, self._batch(place))
        answer = model.latency(config, quota_kind=QuotaKind.GPU_TIME, idle_ms=idle_ms)
        assert answer.mean_ms >= answer.device_ms * (1 - 1e-6)

    def test_device_time_and_host_time_do_not_depend_on_the_quota_or_its_kind(
        self, model: LatencyModel
    ) -> None:
        answers = [
            model.latency(ResourceConfig(50, quota, self.batches[0]), quota_kind=kind)
            for kind, quota in itertools.product(self.quota_kinds, (10, 100))
        ]
        for field in ("device_ms", "host_ms"):
            values = [getattr(answer, field) for answer in answers]
            np.testing.assert_allclose(values, values[0], rtol=1e-6, err_msg=field)

    def test_an_answer_is_the_same_each_time(self, model: LatencyModel) -> None:
        config = ResourceConfig(35, 40, self.batches[-1])
        for kind in self.quota_kinds:
            assert model.latency(config, quota_kind=kind) == model.latency(config, quota_kind=kind)

    @pytest.mark.parametrize("idle_ms", [-1.0, float("nan"), float("inf")])
    def test_a_pause_that_is_none_is_a_typed_error(self, model: LatencyModel, idle_ms: float) -> None:
        with pytest.raises(RappError):
            model.latency(ResourceConfig(50, 50, self.batches[0]), idle_ms=idle_ms)
        with pytest.raises(RappError):
            model.latency_grid(ResourceGrid([50], [50], self.batches[:1]), idle_ms=idle_ms)

    def test_it_has_a_name(self, model: LatencyModel) -> None:
        assert isinstance(model.name, str)
        assert model.name

    def _batch(self, place: int) -> int:
        return self.batches[place % len(self.batches)]


@dataclass(frozen=True)
class ClosedFormModel:
    """A latency model of two numbers, for tests: no artifact, and each answer can be worked out by hand.

        D         = work_ms x (1 + batch) / 2 / (sm_pct / 100)
        H         = launch_ms
        gpu_time     max(D, H, D / q - idle_ms)       q: quota_pct / 100; GPU-QUOTA: closed loop with a pause
        launch_gate  max(D, H / q)

    Args:
        name: name of the network.
        work_ms: D at SM 100 %, batch 1, ms.
        launch_ms: H, ms.
        spread: half-width of the interval: [mean / (1 + spread), mean x (1 + spread)].
        most_batch: a larger batch is extrapolated.
    """

    name: str = "closed-form"
    work_ms: float = 4.0
    launch_ms: float = 6.0
    spread: float = 0.1
    most_batch: int = 8

    def latency(
        self, config: ResourceConfig, *, quota_kind: QuotaKind | None = None, idle_ms: float | None = None
    ) -> LatencyEstimate:
        """The latency of one batch; `launch_gate` and no pause unless given."""
        grid = ResourceGrid([config.sm_pct], [config.quota_pct], [config.batch])
        answer = self.latency_grid(grid, quota_kind=quota_kind, idle_ms=idle_ms)
        times = {field: float(getattr(answer, field).item()) for field in FIELDS}
        return LatencyEstimate(**times, extrapolated=bool(answer.extrapolated.item()))

    def latency_grid(
        self,
        grid: ResourceGrid | None = None,
        *,
        quota_kind: QuotaKind | None = None,
        idle_ms: float | None = None,
    ) -> LatencyGrid:
        """The same over a grid: arrays of shape (S, Q, B)."""
        grid = grid or ResourceGrid()
        pause = 0.0 if idle_ms is None else idle_ms
        if not 0 <= pause < float("inf"):
            raise RappError(f"idle_ms is {pause}: it must be 0 or more")
        share = np.asarray(grid.sm_pct, float)[:, None, None] / 100
        quota = np.asarray(grid.quota_pct, float)[None, :, None] / 100
        batch = np.asarray(grid.batch, float)[None, None, :]
        device: FloatArray = np.broadcast_to(self.work_ms * (1 + batch) / 2 / share, grid.shape)
        host = np.full(grid.shape, self.launch_ms)
        if quota_kind == QuotaKind.GPU_TIME:
            mean = np.maximum(np.maximum(device, host), device / quota - pause)
        else:
            mean = np.maximum(device, host / quota)
        beyond = np.broadcast_to(batch > self.most_batch, grid.shape)
        return LatencyGrid(
            grid, mean, mean / (1 + self.spread), mean * (1 + self.spread), device, host, beyond
        )
