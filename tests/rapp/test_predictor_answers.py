"""What a network answers: single and in columns, extrapolated, by kind of quota."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

sys.path.insert(0, str(Path(__file__).parent))

from predictor_parts import GRID, UNSEEN, TinyArtifact, changed, copy, made, measured, tiny, unseen

from rapp.errors import ConfigError
from rapp.graph import OperatorGraph
from rapp.predictor import NetworkPredictor, Predictor
from rapp.types import QuotaKind, ResourceConfig

__all__ = ["copy", "measured", "tiny", "unseen"]


FIELDS = ("mean_ms", "low_ms", "high_ms", "device_ms", "host_ms")
percent = st.integers(1, 100).map(float) | st.floats(0.5, 100)


class TestExtrapolated:
    @pytest.mark.parametrize(
        ("config", "kind", "expected"),
        [
            ((50, 50, 3), "launch_gate", False),
            ((5, 10, 1), "launch_gate", False),
            ((100, 100, 8), "launch_gate", False),
            ((4, 50, 3), "launch_gate", True),
            ((50, 50, 9), "launch_gate", True),
            ((50, 9, 3), "launch_gate", True),
            ((50, 9, 3), "gpu_time", False),
            ((4, 50, 3), "gpu_time", True),
        ],
    )
    def test_outside_the_trained_ranges(
        self, tiny: Predictor, config: tuple[float, float, int], kind: str, expected: bool
    ) -> None:
        network = tiny.known_network("vgg11")
        asked = ResourceConfig(*config)
        assert network.latency(asked, quota_kind=QuotaKind(kind)).extrapolated is expected

    def test_operators_that_training_did_not_have(self, tiny: Predictor) -> None:
        node = helper.make_node("Fancy", ["x"], ["y"], domain="my.own")
        network = tiny.network(OperatorGraph.from_onnx(made([node], domain="my.own")))
        assert network.extrapolated_operators == {"my.own.Fancy"}
        assert network.latency_grid().extrapolated.all()
        known = tiny.network(OperatorGraph.from_onnx(made([helper.make_node("Relu", ["x"], ["y"])])))
        assert known.extrapolated_operators == frozenset()
        assert not known.latency_grid(GRID).extrapolated.any()

    def test_a_batch_that_the_network_does_not_serve(self, tiny: Predictor) -> None:
        graph = OperatorGraph.from_onnx(made([helper.make_node("Softmax", ["x"], ["y"], axis=0)], batch=4))
        assert graph.only_batch is not None
        found = tiny.network(graph).latencies(50, 50, [1, 2, 4, 8])
        assert found.extrapolated.tolist() == [True, True, False, True]

    def test_beyond_the_knots_the_law_goes_on(self, tiny: Predictor) -> None:
        network = tiny.known_network("vgg11")
        near, far = (network.latency(ResourceConfig(1, 100, b)).device_ms for b in (128, 512))
        assert far == pytest.approx(4 * near, rel=1e-4)


class TestQuestions:
    @given(sm=percent, quota=percent, batch=st.integers(1, 300), kind=st.sampled_from(QuotaKind))
    @settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_columns_hold_the_single_answers(
        self, unseen: NetworkPredictor, sm: float, quota: float, batch: int, kind: QuotaKind
    ) -> None:
        columns = unseen.latencies([sm, 100], [quota, 100], [batch, 1], quota_kind=kind)
        alone = unseen.latency(ResourceConfig(sm, quota, batch), quota_kind=kind)
        for field in FIELDS:
            assert getattr(columns, field)[0] == pytest.approx(getattr(alone, field), rel=1e-6)
        assert columns.extrapolated[0] == alone.extrapolated

    def test_one_number_holds_for_a_whole_column(self, unseen: NetworkPredictor) -> None:
        found = unseen.latencies(50, [10, 100, 60], 2)
        assert found.mean_ms.shape == (3,)
        assert found.mean_ms[1] == pytest.approx(unseen.latency(ResourceConfig(50, 100, 2)).mean_ms, rel=1e-6)

    def test_no_configuration_has_no_answer(self, unseen: NetworkPredictor) -> None:
        found = unseen.latencies([], [], [])
        assert all(getattr(found, field.name).shape == (0,) for field in dataclasses.fields(found))

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (([50, 60], [50], [1, 2, 3]), "differ in length"),
            (([0], [50], [1]), "sm_pct is 0"),
            (([50, 101], [50, 50], [1, 1]), "sm_pct is 101"),
            (([50], [float("nan")], [1]), "quota_pct is nan"),
            (([50], [50], [1.5]), "batch is 1.5"),
            (([50], [50], [float("inf")]), "batch is inf"),
            (([[50]], [50], [1]), "dimensions"),
        ],
    )
    def test_bad_columns_are_named(self, unseen: NetworkPredictor, columns: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            unseen.latencies(*columns)

    def test_the_cards_pause_is_the_default(self, unseen: NetworkPredictor) -> None:
        def ask(idle_ms: float | None) -> float:
            config = ResourceConfig(5, 10, 8)
            return unseen.latency(config, quota_kind=QuotaKind.GPU_TIME, idle_ms=idle_ms).mean_ms

        assert ask(None) == ask(5.0)
        # What a pause saves up is paid back, up to a window of 20 ms.
        assert ask(0.0) == pytest.approx(ask(5.0) + 5.0, rel=1e-3)
        assert ask(0.0) == pytest.approx(ask(20.0) + 20.0, rel=1e-3)
        assert ask(20.0) == ask(1e6)

    def test_a_quota_of_device_time_follows_from_device_and_host_time(self, tiny: Predictor) -> None:
        network = tiny.known_network("vgg11")
        found = network.latency(ResourceConfig(20, 25, 8), quota_kind=QuotaKind.GPU_TIME, idle_ms=0)
        assert found.mean_ms == pytest.approx(4 * found.device_ms, rel=1e-3)
        gated = network.latency(ResourceConfig(20, 25, 8), quota_kind=QuotaKind.LAUNCH_GATE)
        assert gated.mean_ms < 1.2 * found.device_ms


class TestQuotaKinds:
    def test_launch_gate_is_the_default_where_it_was_learned(self, tiny: Predictor, copy: Path) -> None:
        assert tiny.default_quota_kind is QuotaKind.LAUNCH_GATE
        assert (
            changed(copy, quota_kinds=["gpu_time", "launch_gate"]).default_quota_kind is QuotaKind.LAUNCH_GATE
        )

    def test_an_artifact_without_it_says_so(
        self, copy: Path, measured: Any, tiny_artifact: TinyArtifact
    ) -> None:
        predictor = changed(copy, quota_kinds=["gpu_time"])
        assert predictor.default_quota_kind is QuotaKind.GPU_TIME
        network = predictor.network(tiny_artifact.graphs / f"{UNSEEN}.onnx")
        config = ResourceConfig(50, 50, 2)
        assert network.latency(config) == network.latency(config, quota_kind=QuotaKind.GPU_TIME)
        for ask in (network.latency, lambda *_, **k: network.latency_grid(GRID, **k)):
            with pytest.raises(ConfigError, match=r"cannot answer for launch_gate.*ask for gpu_time"):
                ask(config, quota_kind=QuotaKind.LAUNCH_GATE)
        with pytest.raises(ConfigError, match="launch_gate"):
            network.calibrated(measured)

    def test_what_is_no_kind_is_a_typed_error(self, unseen: NetworkPredictor) -> None:
        with pytest.raises(ConfigError, match="one of gpu_time, launch_gate"):
            unseen.latency_grid(GRID, quota_kind="memory")  # type: ignore[arg-type]
