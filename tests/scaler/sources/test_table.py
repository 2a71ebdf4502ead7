"""Device and host time from profile tables of either kind of quota."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rapp.errors import ConfigError, ProfileError
from rapp.graph import OperatorGraph
from rapp.predictor import Predictor
from rapp.profiles import ProfileTable, import_has_gpu
from rapp.recommend import Risk
from rapp.testing import LatencyModelContract
from rapp.types import QuotaKind, ResourceConfig
from scaler.errors import NoLatencySourceError, QuotaSemanticsError
from scaler.sources.table import TableSource

GPU_TIME, LAUNCH_GATE = QuotaKind.GPU_TIME, QuotaKind.LAUNCH_GATE
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def recorded(table) -> TableSource:
    """Quotas of device time, D and H recorded."""
    return TableSource(table(GPU_TIME, recorded=True))


@pytest.fixture(scope="session")
def gated(table) -> TableSource:
    """Quotas that gate launches, opened for planning with them."""
    return TableSource(table(LAUNCH_GATE), LAUNCH_GATE)


class TestRecordedModel(LatencyModelContract):
    quota_kinds = (GPU_TIME,)

    @pytest.fixture
    def model(self, recorded, function):
        return recorded.model(function("alpha"))


class TestGatedModel(LatencyModelContract):
    @pytest.fixture
    def model(self, gated, function):
        return gated.model(function("beta"))


def test_recorded_times_are_taken_as_they_are(recorded, function, closed):
    for name, truth in closed.items():
        times = recorded.times(function(name, max_batch=8))
        assert times.source == "closed.parquet (D and H as measured)"
        for sm, batch in ((5, 8), (35, 2), (100, 1)):
            device, host = times.device_and_host_ms(sm, batch)
            true = truth.latency(ResourceConfig(sm, 100, batch))
            assert device == pytest.approx(true.device_ms)
            assert host == pytest.approx(true.host_ms)
        assert times.instance_memory_mib(8) == 180


@pytest.mark.parametrize("kind", QuotaKind)
def test_both_times_are_recovered_from_latencies_alone(table, function, closed, kind):
    source = TableSource(table(kind))
    for name, truth in closed.items():
        times = source.times(function(name))
        assert times.quota_kind == GPU_TIME
        sm, batch = times.sm_pct[:, None], times.batch
        device, host = times.device_and_host_ms(sm, batch)
        true = np.array([[truth.latency(ResourceConfig(s, 100, int(b))).device_ms for b in batch]
                         for s in times.sm_pct])  # fmt: skip
        # A low quota of device time shows D wherever D / q is above H, that of a launch gate H everywhere.
        shown = true / 0.1 > 1.3 * truth.launch_ms if kind == GPU_TIME else true > 1.2 * truth.launch_ms
        assert shown.any()
        np.testing.assert_allclose(device[shown], true[shown], rtol=0.06)
        hidden = true < truth.launch_ms / 1.3
        if hidden.any():
            np.testing.assert_allclose(host[hidden], truth.launch_ms, rtol=0.06)
            assert (device[hidden] < 1.1 * truth.launch_ms).all()


def test_a_quota_of_device_time_follows_from_a_table_of_launch_gates(table, function, closed):
    times = TableSource(table(LAUNCH_GATE)).times(function("beta"))
    config = ResourceConfig(20, 25, 4)
    true = closed["beta"].latency(config, quota_kind=GPU_TIME, idle_ms=0.0).mean_ms
    assert times.latency_ms(20, 25, 4) == pytest.approx(true, rel=0.06)
    # The gate itself would have let the device run at full speed.
    gate = closed["beta"].latency(config, quota_kind=LAUNCH_GATE).mean_ms
    assert gate < true / 3


def test_a_gate_answers_only_where_it_was_asked_for(table, gated, function, closed):
    config = ResourceConfig(100, 20, 1)
    true = closed["alpha"].latency(config, quota_kind=LAUNCH_GATE).mean_ms
    times = gated.times(function("alpha"))
    assert times.quota_kind == LAUNCH_GATE
    assert times.latency_ms(100, 20, 1) == pytest.approx(true, rel=0.06)
    model = TableSource(table(LAUNCH_GATE)).model(function("alpha"))
    assert model.latency(config) == model.latency(config, quota_kind=GPU_TIME)
    with pytest.raises(
        QuotaSemanticsError, match=r"alpha: closed.parquet .* give --quota-semantics launch_gate"
    ):
        model.latency(config, quota_kind=LAUNCH_GATE)
    with pytest.raises(QuotaSemanticsError, match="none of its quotas gates launches"):
        TableSource(table(GPU_TIME), LAUNCH_GATE)


def test_a_gate_is_kept_beside_recorded_times(table, gated, function):
    beside = TableSource(table(LAUNCH_GATE, recorded=True), LAUNCH_GATE).times(function("beta"))
    inferred = gated.times(function("beta"))
    assert beside.quota_kind == LAUNCH_GATE
    assert beside.latency_ms(20, 30, 4) == pytest.approx(inferred.latency_ms(20, 30, 4), rel=0.02)
    low_only = TableSource(table(LAUNCH_GATE, quotas=(10, 40), recorded=True), LAUNCH_GATE)
    with pytest.raises(QuotaSemanticsError, match="does not show how a launch gate slows beta"):
        low_only.times(function("beta"))


def test_a_launch_gate_without_full_quota_shows_nothing(table, function):
    with pytest.raises(ProfileError, match="alpha has no row at quota 100 %"):
        TableSource(table(LAUNCH_GATE, quotas=(20, 40))).times(function("alpha"))


def test_the_interval_is_narrow_where_much_was_measured(table, function):
    times = TableSource(table(LAUNCH_GATE)).times(function("beta"))
    ratio = times.latency_ms(20, 100, [1, 8], risk=Risk.UPPER) / times.latency_ms(20, 100, [1, 8])
    assert ((ratio > 1) & (ratio < 1.1)).all()


def test_a_network_that_is_not_there_has_the_near_names(recorded, function):
    with pytest.raises(
        NoLatencySourceError, match=r"function f: .*no measured row of 'alhpa' \(near: alpha\)"
    ):
        recorded.times(function("alhpa"))


def test_batches_beyond_the_table_are_not_used(recorded, function, caplog):
    assert recorded.times(function("alpha", max_batch=32)).batch.tolist() == [1, 2, 3, 4, 6, 8]
    assert "knows alpha up to batch 8: max_batch 32 is not used" in caplog.text
    assert recorded.times(function("alpha", max_batch=5)).batch.tolist() == [1, 2, 3, 4, 5]


def test_rows_of_two_devices_are_not_mixed(table, function):
    both = ProfileTable.concat([table(GPU_TIME), table(GPU_TIME, device="other")])
    with pytest.raises(ConfigError, match="more than one device"):
        TableSource(both).times(function("alpha"))


@pytest.fixture(scope="session")
def file() -> str:
    """A network's file."""
    return str(REPOSITORY / "datasets/graphs/alexnet.onnx")


@pytest.fixture(scope="session")
def graph_hash(file: str) -> str:
    """Of that network."""
    return OperatorGraph.from_onnx(file).graph_hash


@pytest.fixture(scope="session")
def public(v100_dir: Path) -> ProfileTable:
    """The public profiles of a network that the device holds up, and of one that launching does."""
    return import_has_gpu(v100_dir, REPOSITORY / "datasets/graphs", ["vgg19", "efficientnet_b0"])


class TestGraphHash:
    """A network that is given as a file is found by its graph, not by its name."""

    def test_under_another_name(self, table, function, file, graph_hash):
        rows = table(GPU_TIME, recorded=True, graph_hash=graph_hash)
        assert TableSource(rows.filter(network="beta")).times(function(file)).network == "beta"

    def test_a_file_is_read_once_for_all_its_functions(self, table, function, file, graph_hash, monkeypatch):
        read, given = [], OperatorGraph.from_onnx
        monkeypatch.setattr(OperatorGraph, "from_onnx", lambda path: (read.append(path), given(path))[1])
        source = TableSource(table(GPU_TIME, recorded=True, graph_hash=graph_hash).filter(network="beta"))
        for number in range(3):
            assert source.times(function(file, name=f"f{number}")).network == "beta"
        assert len(read) == 1

    def test_without_hashes_by_name(self, table, function, file):
        rows = table(GPU_TIME, quotas=(100,), recorded=True, networks={"alexnet": "beta"})
        assert TableSource(rows).times(function(file)).network == "alexnet"
        with pytest.raises(NoLatencySourceError, match="no measured row of 'alexnet'"):
            TableSource(table(GPU_TIME)).times(function(file))

    def test_another_graph_of_the_same_name_is_refused(self, table, function, file):
        rows = table(
            GPU_TIME, quotas=(100,), recorded=True, networks={"alexnet": "beta"}, graph_hash="0" * 64
        )
        with pytest.raises(NoLatencySourceError, match="the graph hashes differ"):
            TableSource(rows).times(function(file))


class TestPublicV100:
    def test_the_pace_is_the_latency_at_full_quota(self, public, function):
        source = TableSource(public)
        for network in public.networks():
            points = public.filter(quota_pct=100).points(network)
            pace = source.times(function(network)).execution_ms(points.sm_pct, points.batch)
            # The noise of a single measurement is 3 %.
            assert np.abs(pace / points.latency_ms - 1).mean() < 0.025

    def test_a_device_bound_network_pays_a_quota_of_device_time_in_full(self, public, function):
        source = TableSource(public)
        # 312 ms at every quota of the launch gate.
        assert source.times(function("vgg19")).latency_ms(5, 10, 8) == pytest.approx(3120, rel=0.03)

    def test_an_artifact_continues_device_time_where_launching_hides_it(self, public, function):
        pytest.importorskip("onnxruntime")
        file = str(REPOSITORY / "datasets/graphs/efficientnet_b0.onnx")
        prior = Predictor.load(REPOSITORY / "models/v100")
        alone, helped = (TableSource(public, prior=p).times(function(file)) for p in (None, prior))
        # Seen at SM 5 %, batch 8, by both; at SM 100 %, batch 1, the power law alone falls to less than 1 ms.
        assert helped.device_and_host_ms(5, 8)[0] == pytest.approx(
            alone.device_and_host_ms(5, 8)[0], rel=0.03
        )
        assert helped.device_and_host_ms(100, 1)[0] > 2 * alone.device_and_host_ms(100, 1)[0]
        with pytest.raises(ConfigError, match="needs the network's ONNX file"):
            TableSource(public, prior=prior).times(function("efficientnet_b0"))
