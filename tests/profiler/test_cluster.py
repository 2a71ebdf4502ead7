"""A campaign over a Ray cluster of two nodes on this machine, one of which dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from profiler.campaign import Brake, Campaign, Halt, Watcher
from profiler.cluster_host import Host, Shipment
from profiler.device import NetworkFile
from profiler.devices.opening import DeviceSettings
from profiler.journal import Journal
from profiler.measure import StopRule
from profiler.outcome import Outcome
from profiler.plan import NetworkPlan, plan_network
from profiler.specification import specify
from rapp.errors import ConfigError, RappError
from rapp.profiles import ProfileTable
from rapp.types import ResourceGrid

ray = pytest.importorskip("ray", reason="needs the extra ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

from profiler.cluster import RayCluster  # noqa: E402

GRID = ResourceGrid((10, 20, 30, 40, 50, 60, 80, 100), (50, 100), (1, 2))
RULE = StopRule(max_samples=20)
NETWORKS = (NetworkFile("first", None, "h1"), NetworkFile("second", None, "h2"))


def write_table(path: Path) -> None:
    """Both networks over the whole grid, as a device would have measured them."""
    rows = [
        {
            "network": network.name, "graph_hash": network.graph_hash, "device": "D", "runtime": "r",
            "precision": "fp32", "batch": config.batch, "sm_pct": config.sm_pct,
            "quota_pct": config.quota_pct, "quota_kind": "gpu_time", "latency_ms": 2.0 + 100 / config.sm_pct,
            "idle_ms": 0.0, "derived": False, "status": "ok", "campaign_id": "c", "anchor": False,
        }
        for network in NETWORKS
        for config in GRID
    ]  # fmt: skip
    ProfileTable.from_rows(rows).write(path)


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A cluster of two nodes; the second one can be killed."""
    cluster = cluster_utils.Cluster(
        initialize_head=True, connect=False, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


class Strike(Watcher):
    """Does something after so many outcomes, and counts them."""

    def __init__(self, after: int, deed: Any) -> None:
        self.after, self.deed = after, deed
        self.ends: Counter[Any] = Counter()

    def ended(self, outcome: Outcome) -> None:
        self.ends[outcome.point] += 1
        if self.ends.total() == self.after:
            self.deed()


def plans() -> list[NetworkPlan]:
    return [plan_network(network, GRID) for network in NETWORKS]


def test_a_node_dies_and_nothing_is_lost_or_counted_twice(nodes: Any, tmp_path: Path) -> None:
    write_table(tmp_path / "table.parquet")
    device = f"replay:{tmp_path / 'table.parquet'}?sleep=0.25"
    out = tmp_path / "out.parquet"
    with RayCluster.connect(nodes.address, device) as cluster:
        assert len(cluster) == 2
        strike = Strike(8, lambda: nodes.remove_node(nodes.second, allow_graceful=False))
        specification = specify(NETWORKS, GRID, cluster.info, RULE)
        with Journal.open(out, specification) as journal:
            campaign = Campaign(cluster.info, plans(), journal, RULE, watcher=strike)
            assert cluster.run(campaign) is None
            assert len(cluster) == 1, "the other node was lost"
            table = campaign.write(out)
        assert set(strike.ends.values()) == {1}
        planned = [point for plan in plans() for point in plan.measured]
        assert set(strike.ends) == set(planned)
        grid = table.filter(anchor=False).arrow.to_pylist()
        assert len(grid) == len(NETWORKS) * len(GRID)
        assert {row["status"] for row in grid} == {"ok"}

        # A campaign that is stopped leaves the rest, and the same one goes on.
        second = tmp_path / "second.parquet"
        brake = Brake()
        with Journal.open(second, specification) as journal:
            watcher = Strike(4, lambda: brake.pull(Halt.BUDGET))
            stopped = Campaign(cluster.info, plans(), journal, RULE, brake=brake, watcher=watcher)
            assert cluster.run(stopped) == Halt.BUDGET
            assert 4 <= watcher.ends.total() < len(planned)


def test_an_address_without_a_cluster_is_one_line() -> None:
    with pytest.raises(RappError, match=r"ray start --head"):
        RayCluster.connect("127.0.0.1:1", "cpu")


def test_a_device_that_a_node_cannot_open_is_its_own_line(nodes: Any, tmp_path: Path) -> None:
    with pytest.raises(RappError, match="no such file"):
        RayCluster.connect(nodes.address, f"replay:{tmp_path / 'no.parquet'}")


def test_one_gpu_of_a_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="write cuda"):
        RayCluster.connect("auto", "cuda:1")


def test_a_network_travels_with_its_external_data(tmp_path: Path) -> None:
    model = onnx.load(Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx")
    (tmp_path / "here").mkdir()
    file = tmp_path / "here" / "net.onnx"
    onnx.save_model(model, file, save_as_external_data=True, location="net.data", size_threshold=0)
    there = tmp_path / "there"
    there.mkdir()
    shipment = Shipment.pack(NetworkFile("net", file, "h"), (1,))
    unpacked = shipment.unpack(there)
    assert unpacked.path == there / "net.onnx"
    assert (there / "net.data").read_bytes() == (tmp_path / "here" / "net.data").read_bytes()
    assert unpacked.path.read_bytes() == file.read_bytes()


def test_a_host_tells_which_device_measured(tmp_path: Path) -> None:
    write_table(tmp_path / "table.parquet")
    host = Host(f"replay:{tmp_path / 'table.parquet'}", DeviceSettings())
    info = host.open()
    plan = plans()[0]
    unit = next(unit for unit in plan.units if unit.points[0].anchor is None)
    outcomes = list(host.run(unit, Shipment.pack(plan.network, plan.batches), RULE, ()))
    assert [outcome.point for outcome in outcomes] == list(unit.points)
    assert all(outcome.device_uuid == info.device_uuid for outcome in outcomes)
    host.stop()
    assert list(host.run(unit, Shipment.pack(plan.network, plan.batches), RULE, ())) == []
    host.close()
