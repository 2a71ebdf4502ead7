"""Small parts: slots, tokens, counts, placement and first instances."""

from __future__ import annotations

import math
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.core.observation import GpuView
from scaler.functions import FunctionSpec, InitialConfig
from scaler.serving.arena import Arena
from scaler.serving.counts import BUCKETS_S, FunctionCounts, LatencyHistogram
from scaler.serving.devices import CpuDevice
from scaler.serving.initial import initial_decision
from scaler.serving.network import ServedNetwork, lay_out
from scaler.serving.placement import Occupant, why_no_room
from scaler.serving.token import TokenError, is_authorized, make_token_file, read_token_file

GPU = GpuView("cpu:0", 1000.0, 4.0)


def spec(name: str, **more: object) -> FunctionSpec:
    return FunctionSpec(name=name, network="net.onnx", slo_ms=100, **more)  # type: ignore[arg-type]


class TestArena:
    def test_slots_are_taken_once_and_all_or_none(self) -> None:
        arena = Arena.make(4, 64)
        first = arena.take(3)
        assert first is not None and len(set(first)) == 3
        assert arena.take(2) is None
        assert arena.free_slots == 1
        for slot in first:
            arena.give_back(slot)
        # What was used last is used first, so that few pages are touched.
        assert arena.take(1) == [first[-1]]
        arena.close()

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(["int8", "float32", "float64"]), st.integers(0, 70)), max_size=5)
    )
    def test_tensors_in_a_slot_are_aligned_and_apart(self, shapes: list[tuple[str, int]]) -> None:
        listed = [(f"t{place}", dtype, (count,)) for place, (dtype, count) in enumerate(shapes)]
        inputs, outputs, size = lay_out(listed[:2], listed[2:])
        end = 0
        for tensor in (*inputs, *outputs):
            assert tensor.offset % 64 == 0
            assert tensor.offset >= end
            end = tensor.offset + tensor.size
        assert size % 64 == 0 and size >= end
        network = ServedNetwork(Path("n.onnx"), True, inputs, outputs, size, 1.5)
        assert ServedNetwork.from_json(network.to_json()) == network


class TestToken:
    def test_one_is_made_for_its_owner_alone_and_kept(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        token = make_token_file(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert make_token_file(file) == token == read_token_file(file)
        assert len(token) > 30

    @pytest.mark.parametrize("content", ["short", "with space and length", "", "näturally-not-ascii"])
    def test_what_is_none(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "token"
        file.write_text(content)
        file.chmod(0o600)
        with pytest.raises(TokenError):
            read_token_file(file)

    @settings(deadline=None)
    @given(st.text(max_size=40))
    def test_only_the_token_opens(self, given_: str) -> None:
        token = "t" * 20
        assert is_authorized(f"Bearer {token}", token)
        assert is_authorized(given_, token) == (given_ == f"Bearer {token}")


class TestCounts:
    @settings(deadline=None)
    @given(st.lists(st.floats(1e-5, 60), min_size=1, max_size=50))
    def test_a_histogram_counts_each_latency_in_its_bucket(self, latencies: list[float]) -> None:
        histogram = LatencyHistogram()
        for latency in latencies:
            histogram.add(latency)
        for place, bound in enumerate(BUCKETS_S):
            assert sum(histogram.counts[: place + 1]) == sum(one <= bound for one in latencies)
        assert sum(histogram.counts) == len(latencies)
        assert histogram.sum_s == pytest.approx(sum(latencies))

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.integers(500, 999))
    def test_the_quantile_is_the_smallest_that_enough_do_not_exceed(
        self, latencies: list[float], per_mille: int
    ) -> None:
        counts = FunctionCounts()
        for latency in latencies:
            counts.complete(100.0, latency, 1, math.inf)
        shown = counts.latency_ms(100.0, per_mille / 1000)
        # In whole numbers: as floats 0.55 x 100 is above 55, and one rank would be too many.
        rank = -(-per_mille * len(latencies) // 1000)
        assert shown == pytest.approx(1e3 * sorted(latencies)[rank - 1])
        assert counts.latency_ms(111.0, per_mille / 1000) is None  # they are too old

    def test_late_is_after_the_objective(self) -> None:
        counts = FunctionCounts()
        counts.complete(0.0, 0.1, 2, 0.1)
        counts.complete(0.0, 0.1001, 3, 0.1)
        assert (counts.completed, counts.late) == (5, 3)


class TestPlacement:
    THERE = (
        Occupant(0, ResourceConfig(50, 60, 1), 300),
        Occupant(1, ResourceConfig(25, 100, 1), 300),
    )

    @pytest.mark.parametrize(
        ("row", "config", "memory_mib", "why"),
        [
            (0, ResourceConfig(50, 40, 4), 400, None),
            (2, ResourceConfig(25, 100, 1), 10, None),
            (0, ResourceConfig(50, 41, 1), 10, "101 % of its time"),
            (0, ResourceConfig(25, 10, 1), 10, "the row has SM 50 %"),
            (2, ResourceConfig(30, 10, 1), 10, "105 % of its SMs"),
            (2, ResourceConfig(25, 10, 5), 10, "batch 5"),
            (-1, ResourceConfig(25, 10, 1), 10, "no row -1"),
            (2, ResourceConfig(25, 10, 1), 401, "1000 MiB, not 1001"),
        ],
    )
    def test_room(self, row: int, config: ResourceConfig, memory_mib: float, why: str | None) -> None:
        found = why_no_room(GPU, self.THERE, Occupant(row, config, memory_mib), 4)
        assert found is None if why is None else why in str(found)


class TestFirstInstances:
    def decided(self, *functions: FunctionSpec, cores: int = 4) -> list[tuple[str, int, float, float]]:
        device = CpuDevice(tuple(range(cores)))
        memory = {one.name: 1.0 for one in functions}
        decision = initial_decision(functions, memory, device, cores)
        there: list[Occupant] = []
        for one in decision.actions:
            assert one.kind == "start"
            new = Occupant(one.row, one.config, 1.0)
            assert device.why_not(one.config.sm_pct) is None
            assert why_no_room(device.view, there, new, 8) is None
            there.append(new)
        return [
            (one.id, one.row, one.config.sm_pct, one.config.quota_pct)
            for one in decision.actions
            if one.kind == "start"
        ]

    def test_cores_are_shared_fairly(self) -> None:
        assert self.decided(spec("a")) == [("a-0", 0, 100, 100)]
        assert self.decided(spec("a"), spec("b")) == [("a-0", 0, 50, 100), ("b-0", 1, 50, 100)]

    def test_more_functions_than_cores_share_rows(self) -> None:
        assert self.decided(*(spec(name) for name in "abc"), cores=2) == [
            ("a-0", 0, 50, 50), ("b-0", 1, 50, 100), ("c-0", 0, 50, 50),
        ]  # fmt: skip

    def test_what_is_given_comes_first_and_none_for_those_that_scale_to_zero(self) -> None:
        given_ = spec("b", initial=InitialConfig(sm_pct=75, quota_pct=30, batch=2), min_instances=2)
        zero = spec("c", min_instances=0)
        assert self.decided(spec("a"), given_, zero) == [
            ("b-0", 0, 75, 30), ("b-1", 0, 75, 30), ("a-0", 1, 25, 100),
        ]  # fmt: skip

    @settings(deadline=None)
    @given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
    def test_any_number_fits(self, functions: int, cores: int, instances: int) -> None:
        listed = [spec(f"f{number}", min_instances=instances) for number in range(functions)]
        assert len(self.decided(*listed, cores=cores)) == functions * instances

    def test_what_does_not_fit_is_an_error(self) -> None:
        whole = InitialConfig(sm_pct=100, quota_pct=60)
        with pytest.raises(ConfigError, match="function b"):
            self.decided(spec("a", initial=whole), spec("b", initial=whole))
        with pytest.raises(ConfigError, match="nothing of the device is left for b"):
            self.decided(spec("a", initial=whole), spec("b"))
