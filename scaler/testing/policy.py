"""The contract of `scaler.policies.base.Policy`."""

from __future__ import annotations

import json
from dataclasses import replace

from rapp.errors import MissingExtraError
from rapp.types import ResourceConfig
from scaler.core.checking import Checker
from scaler.core.decision import Reason, Start
from scaler.core.observation import Phase
from scaler.functions import FunctionSpec
from scaler.policies.base import Policy
from scaler.testing.policy_loop import Demand, Loop, function

try:
    import pytest
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "dev") from error

# A policy keeps nothing, so that examples may share it; the machines of tests are shared too.
_shared = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture, HealthCheck.differing_executors, HealthCheck.too_slow,
    ],
)  # fmt: skip
_rates = st.floats(0, 400)


class PolicyContract:
    """A subclass overrides the fixture `policy`."""

    settle_ticks: int = 5
    """Ticks after the first cold start in which a constant demand is answered for good."""

    capacity_share: float = 1.0
    """Part of the forecast's quantile that the capacity has to reach under a constant demand. Below 1 for a
    published algorithm whose thresholds leave a rate above its capacity; its test says which."""

    restless_rps: tuple[float, ...] = ()
    """Constant demands of the contract under which a published algorithm goes round in circles for ever."""

    scales_to_zero: bool = True
    """False: the policy provisions once, and keeps what it has without requests."""

    follows_demand: bool = True
    """False: how many instances there are does not depend on the forecast."""

    @pytest.fixture
    def policy(self) -> Policy:
        """The policy under test."""
        raise NotImplementedError("a subclass of PolicyContract overrides the fixture `policy`")

    def test_it_has_a_name(self, policy: Policy) -> None:
        assert isinstance(policy.name, str)
        assert policy.name

    def test_without_functions_there_is_nothing_to_do(self, policy: Policy) -> None:
        loop = Loop(policy, ())
        loop.tick({}, 3)
        assert loop.history == [[], [], []]

    @given(data=st.data(), count=st.integers(0, 3), there=st.integers(0, 3))
    @_shared
    def test_it_is_pure_and_cannot_overcommit(
        self, policy: Policy, data: st.DataObject, count: int, there: int
    ) -> None:
        loop = Loop(policy, _drawn_functions(data, count), there)
        _drawn_fleet(data, loop)
        for _ in range(4):
            demand = {name: _drawn_demand(data) for name in loop.served}
            cases, seen = loop.cases(demand)
            before = json.dumps(loop.memory, allow_nan=False)
            answers = [
                policy.decide(memory, loop.fleet.now_s, cases, seen.pool.copy())
                for memory in (loop.memory, json.loads(before))
            ]
            assert answers[0] == answers[1], "a second time, with a memory from JSON, it answers otherwise"
            assert json.dumps(loop.memory, allow_nan=False) == before, "its memory was changed in place"
            assert set(answers[0][2]) <= set(demand)
            assert all(rate >= 0 for rate in answers[0][2].values())
            loop.tick(demand)
            assert loop.dropped == []

    @pytest.mark.parametrize("least", [1, 3])
    def test_it_keeps_the_minimum_of_instances_without_load(self, policy: Policy, least: int) -> None:
        loop = Loop(policy, [function(min_instances=least)])
        loop.tick({"f": Demand(0.0)}, self.settle_ticks)
        assert loop.instances("f") >= least
        loop.tick({"f": Demand(0.0, idle_s=500.0)}, 120)
        assert loop.instances("f") >= least

    @pytest.mark.parametrize("rps", [5.0, 60.0, 200.0])
    def test_a_constant_demand_is_met_within_a_few_ticks_and_then_all_is_still(
        self, policy: Policy, rps: float
    ) -> None:
        loop = Loop(policy, [function()], gpus=8)
        demand = {"f": Demand(rps, 1.1 * rps)}
        loop.tick(demand, self.settle_ticks)
        assert loop.instances("f") >= 1
        if self.follows_demand:
            assert loop.capacity["f"] >= self.capacity_share * 1.1 * rps
        loop.tick(demand, 3)
        before = len(loop.history)
        loop.tick(demand, 60)
        assert (loop.history[before:] == [[]] * 60) == (rps not in self.restless_rps)

    def test_an_empty_memory_amid_a_fleet_that_suffices_settles_too(self, policy: Policy) -> None:
        loop = Loop(policy, [function()], gpus=8)
        demand = {"f": Demand(80.0, 90.0)}
        loop.tick(demand, self.settle_ticks + 3)
        loop.memory = policy.start()
        loop.tick(demand, self.settle_ticks)
        before = len(loop.history)
        loop.tick(demand, 30)
        assert loop.history[before:] == [[]] * 30

    def test_without_room_it_says_so_and_does_not_go_round_in_circles(self, policy: Policy) -> None:
        loop = Loop(policy, [function()], gpus=1)
        demand = {"f": Demand(5000.0, 6000.0)}
        loop.tick(demand, self.settle_ticks + 3)
        if self.follows_demand:
            assert loop.capacity["f"] < 6000.0
        before = len(loop.history)
        loop.tick(demand, 40)
        assert loop.history[before:] == [[]] * 40
        assert loop.dropped == []

    def test_without_a_gpu_nothing_is_started(self, policy: Policy) -> None:
        loop = Loop(policy, [function()], gpus=0)
        loop.tick({"f": Demand(50.0)}, 5)
        assert loop.history == [[]] * 5
        assert loop.dropped == []
        assert loop.capacity.get("f", 0.0) == 0.0

    def test_a_lost_instance_is_replaced(self, policy: Policy) -> None:
        loop = Loop(policy, [function(min_instances=1)])
        loop.tick({"f": Demand(1.0)}, self.settle_ticks + 3)
        for id_ in list(loop.fleet.instances):
            loop.fleet.lose(id_)
        loop.tick({"f": Demand(1.0, lost=1)}, self.settle_ticks)
        assert loop.instances("f") >= 1

    def test_a_first_request_wakes_a_function_up(self, policy: Policy) -> None:
        if not self.scales_to_zero:
            pytest.skip("it keeps what it has")
        loop = Loop(policy, [function(min_instances=0)])
        loop.tick({"f": Demand(0.0, idle_s=500.0)}, 5)
        assert loop.instances("f") == 0
        loop.tick({"f": Demand(0.0, queue=1)})
        assert loop.instances("f") >= 1

    def test_a_function_without_requests_goes_to_zero_after_its_time_and_not_before(
        self, policy: Policy
    ) -> None:
        if not self.scales_to_zero:
            pytest.skip("it keeps what it has")
        loop = Loop(policy, [function(min_instances=0, idle_to_zero_s=30.0)])
        loop.tick({"f": Demand(20.0)}, self.settle_ticks)
        for second in range(29):
            loop.tick({"f": Demand(0.0, idle_s=float(second))})
            assert loop.instances("f") >= 1
        for second in range(30, 60):
            loop.tick({"f": Demand(0.0, idle_s=float(second))})
        assert loop.instances("f") == 0

    def test_a_demand_that_goes_up_and_down_ends_where_it_began(self, policy: Policy) -> None:
        if not self.follows_demand:
            pytest.skip("it does not follow the forecast")
        loop = Loop(policy, [function()], gpus=8)
        loop.tick({"f": Demand(10.0)}, 60)
        share_before = _share(loop)
        loop.tick({"f": Demand(200.0)}, self.settle_ticks)
        assert _share(loop) > share_before
        loop.tick({"f": Demand(10.0)}, 900)
        assert _share(loop) <= 1.5 * share_before


def _share(loop: Loop) -> float:
    return sum(one.config.gpu_share for one in loop.fleet.instances.values())


def _drawn_functions(data: st.DataObject, count: int) -> list[FunctionSpec]:
    return [
        function(
            f"f{number}",
            slo_ms=data.draw(st.sampled_from([40.0, 120.0, 500.0])),
            min_instances=data.draw(st.integers(0, 3)),
            max_batch=data.draw(st.sampled_from([1, 4, 8])),
        )
        for number in range(count)
    ]


def _drawn_demand(data: st.DataObject) -> Demand:
    mean = data.draw(_rates)
    return Demand(
        mean,
        mean * data.draw(st.floats(1, 2)),
        data.draw(st.integers(0, 50)),
        data.draw(st.sampled_from([0.0, 1.0, 100.0])),
        data.draw(st.integers(0, 1)),
    )


def _drawn_fleet(data: st.DataObject, loop: Loop) -> None:
    """Instances of any size, where they fit."""
    if not loop.served:
        return
    cases, there = loop.cases({name: Demand(0.0) for name in loop.served})
    checker = Checker.of(there, loop.served, set(loop.served))
    for number in range(data.draw(st.integers(0, 8))):
        spec = data.draw(st.sampled_from([case.spec for case in cases]))
        config = ResourceConfig(
            data.draw(st.sampled_from([10.0, 25.0, 50.0, 100.0])),
            data.draw(st.sampled_from([10.0, 35.0, 60.0, 100.0])),
            data.draw(st.integers(1, spec.max_batch)),
        )
        gpu, row = f"gpu-{data.draw(st.integers(0, 2))}", data.draw(st.integers(0, 3))
        start = Start(f"old-{number}", spec.name, gpu, row, config, Reason.POLICY)
        if checker.take(start) is None:
            loop.fleet.add(start.id, spec.name, gpu, row, config)
            if data.draw(st.booleans()):
                one = loop.fleet.instances[start.id]
                loop.fleet.instances[start.id] = replace(one, phase=Phase.READY)
