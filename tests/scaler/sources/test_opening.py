"""Sources as they are named on a command line, and what is asked of all alike."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from rapp.errors import ArtifactError, CalibrationError, ConfigError, InfeasibleError, ProfileError
from rapp.predictor import Predictor
from rapp.recommend import Risk
from rapp.testing import LatencyModelContract
from rapp.types import MeasuredPoint, QuotaKind, ResourceConfig
from scaler.errors import NoLatencySourceError, QuotaSemanticsError
from scaler.sources.base import LatencySource, check_objective, memory_mib
from scaler.sources.opening import open_source

REPOSITORY = Path(__file__).parents[3]
ARTIFACT = REPOSITORY / "models/v100"
GRAPH = REPOSITORY / "datasets/graphs/resnet50.onnx"


@pytest.fixture(scope="session")
def source() -> LatencySource:
    """The committed artifact."""
    pytest.importorskip("onnxruntime")
    return open_source(ARTIFACT)


class TestConstantModel(LatencyModelContract):
    quota_kinds = (QuotaKind.GPU_TIME,)

    @pytest.fixture
    def model(self, function):
        return open_source("constant:12,5").model(function("any"))


class TestConstant:
    def test_every_batch_takes_the_same_time_at_any_sm_partition(self, function):
        times = open_source("constant:10").times(function("any", max_batch=64))
        np.testing.assert_allclose(times.latency_ms([1, 50, 100], 100, [[1], [64]]), 10)
        assert times.latency_ms(50, 25, 1) == pytest.approx(40)

    def test_host_time_may_be_given(self, function):
        device, host = open_source("constant:10,3").times(function("any")).device_and_host_ms(50, 1)
        assert (device, host) == (pytest.approx(10), pytest.approx(3))

    @pytest.mark.parametrize(
        "text", ["constant:", "constant:x", "constant:1,2,3", "constant:0", "constant:nan"]
    )
    def test_what_is_none(self, text):
        with pytest.raises(ConfigError, match="write constant:DEVICE_MS"):
            open_source(text)


@pytest.mark.usefixtures("source")
class TestPredictor:
    def test_it_answers_as_the_artifact_does(self, source, function):
        times = source.times(function("resnet50"))
        truth = Predictor.load(ARTIFACT).known_network("resnet50")
        for sm, batch in ((5, 8), (50, 4)):
            answer = truth.latency(ResourceConfig(sm, 100, batch), quota_kind=QuotaKind.GPU_TIME, idle_ms=0)
            device, host = times.device_and_host_ms(sm, batch)
            assert device == pytest.approx(answer.device_ms)
            assert host == pytest.approx(answer.host_ms)
            ratio = times.latency_ms(sm, 100, batch, risk=Risk.UPPER) / times.latency_ms(sm, 100, batch)
            assert ratio == pytest.approx(answer.high_ms / answer.mean_ms)
        assert times.batch.max() == 8

    def test_a_file_of_the_training_is_the_network_of_its_name(self, source, function):
        by_file, by_name = (source.times(function(one)) for one in (str(GRAPH), "resnet50"))
        np.testing.assert_array_equal(by_file.device_ms, by_name.device_ms)

    def test_a_calibration_counts_for_its_networks(self, function, tmp_path):
        points = [
            MeasuredPoint(ResourceConfig(100, 100, 1), 41.0),
            MeasuredPoint(ResourceConfig(5, 100, 8), 232.0),
        ]
        file = tmp_path / "calibration.json"
        Predictor.load(ARTIFACT).network(GRAPH).calibrated(points).save_calibration(file)
        source = open_source(ARTIFACT, calibration=file)
        assert source.name == f"{ARTIFACT} + {file}"
        assert source.times(function(str(GRAPH))).base_ms() == pytest.approx(41, rel=0.1)
        other = str(GRAPH.with_name("alexnet.onnx"))
        plain = open_source(ARTIFACT).times(function(other))
        np.testing.assert_array_equal(source.times(function(other)).device_ms, plain.device_ms)

    def test_a_calibration_that_is_none(self, tmp_path):
        (tmp_path / "c.json").write_text("{}")
        with pytest.raises(CalibrationError):
            open_source(ARTIFACT, calibration=tmp_path / "c.json")

    def test_an_unknown_network_is_an_error_of_the_function(self, source, function):
        with pytest.raises(NoLatencySourceError, match=r"function f: .*no network 'resnet5'"):
            source.times(function("resnet5"))

    def test_a_launch_gate_is_planned_with_where_it_was_asked_for(self, function):
        times = open_source(ARTIFACT, quota_kind=QuotaKind.LAUNCH_GATE).times(function("vgg19"))
        # A device-bound network runs at full speed at 10 %: it takes 312 ms at every quota.
        assert times.latency_ms(5, 10, 8) == pytest.approx(312, rel=0.05)
        assert times.without_gate().latency_ms(5, 10, 8) == pytest.approx(3120, rel=0.05)


def test_what_is_no_source(tmp_path):
    with pytest.raises(ArtifactError, match="no predictor artifact"):
        open_source(tmp_path)
    with pytest.raises(ProfileError, match="no such file"):
        open_source(tmp_path / "none.parquet")
    with pytest.raises(ConfigError, match="a calibration goes with an artifact, not with a table"):
        open_source(tmp_path / "none.parquet", calibration="c.json")
    with pytest.raises(ConfigError, match="a prior artifact goes with a profile table, not with a constant"):
        open_source("constant:5", prior=ARTIFACT)
    with pytest.raises(QuotaSemanticsError, match="leave --quota-semantics launch_gate out"):
        open_source("constant:5", quota_kind=QuotaKind.LAUNCH_GATE)


def test_an_objective_below_the_fastest_configuration_names_it(function):
    times = open_source("constant:10").times(function("any"))
    check_objective(function("any"), 10.0, times)
    with pytest.raises(InfeasibleError) as error:
        check_objective(function("any"), 9.5, times)
    assert str(error.value) == (
        "function f: an objective of 9.5 ms is below the fastest configuration of any, SM 1 %, quota 100 %,"
        " batch 1, which takes 10 ms (mean, constant 10 ms)"
    )


def test_memory_is_that_given_else_that_measured_else_that_of_has_gpu(function, caplog):
    times = open_source("constant:10").times(function("any"))
    assert memory_mib(function("any", memory_mib=512.0), times) == 512
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert memory_mib(function("any"), times) == pytest.approx(3528.6, abs=0.1)
    assert "function f: memory is not known" in caplog.text
