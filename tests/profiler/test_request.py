"""From what a user asks for to a campaign that can run: devices, networks, and what is skipped at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import pytest

from profiler.device import NetworkFile
from profiler.devices.opening import DeviceSettings, device_kind, open_device
from profiler.estimate import ASSUMED, known_pace
from profiler.networks import Networks, named_networks, read_networks
from profiler.outcome import Outcome, Status
from profiler.plan import Point, QuotaMode, plan_network
from profiler.request import Request, obstacles, prepared
from rapp.errors import ConfigError, GraphError
from rapp.graph import with_batch
from rapp.profiles import ProfileTable
from rapp.types import ResourceConfig, ResourceGrid

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
GRID = ResourceGrid((50, 100), (50, 100), (1, 2))


@pytest.fixture
def squeezenet() -> Path:
    return LIGHT / "light_squeezenet.onnx"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cpu", "cpu"),
        ("cuda", "cuda"),
        ("cuda:1", "cuda"),
        ("cuda:GPU-a-b", "cuda"),
        ("replay:a:b?seed=1", "replay"),
    ],
)
def test_a_device_has_a_kind(name: str, kind: str) -> None:
    assert device_kind(name) == kind


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "replay:", "replay", "cpu:0", "CPU"])
def test_other_names_are_none(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no such device; write cuda"):
        device_kind(name)


def test_settings_reach_the_device() -> None:
    device = open_device("cpu", DeviceSettings(idle_ms=3.0, window_ms=20.0))
    assert (device.info.idle_ms, device.info.window_ms) == (3.0, 20.0)
    assert open_device("cpu").info.window_ms == 40.0


def test_files_are_networks_called_by_their_stems(squeezenet: Path) -> None:
    found = read_networks([squeezenet], (1, 8))
    assert [(file.name, file.path) for file in found.files] == [("light_squeezenet", squeezenet)]
    assert len(str(found.files[0].graph_hash)) == 64
    need = found.need_mib["light_squeezenet"]
    assert need[1] < need[8]
    with pytest.raises(ConfigError, match="two networks are called light_squeezenet"):
        read_networks([squeezenet, squeezenet], (1,))
    with pytest.raises(GraphError, match="No such file"):
        read_networks([Path("nothing.onnx")], (1,))


def test_a_network_that_serves_one_batch_is_skipped_at_others(
    scripted: Callable[..., Any], squeezenet: Path
) -> None:
    fixed = NetworkFile("fixed", squeezenet, "h", (2,))
    why_not = obstacles(scripted(), Networks((fixed,)))
    assert why_not(fixed, ResourceConfig(50, 50, 2)) is None
    assert why_not(fixed, ResourceConfig(50, 50, 4)) == "the network runs with batch 2 alone"
    plan = plan_network(fixed, GRID, why_not=why_not)
    assert {point.config.batch for point in plan.skipped} == {1}
    assert {point.config.batch for point in plan.measured} == {2}, "the anchors too"


def test_what_cannot_be_obtained_or_cannot_fit_is_skipped(scripted: Callable[..., Any]) -> None:
    net = NetworkFile("net", None)
    device = scripted(absent={50.0: "no half"}, info={"memory_mib": 1000.0})
    why_not = obstacles(device, Networks((net,), {"net": {1: 900.0, 8: 2000.0}}))
    assert why_not(net, ResourceConfig(100, 50, 1)) is None
    assert why_not(net, ResourceConfig(100, 50, 2)) is None, "no estimate, no skipping"
    assert why_not(net, ResourceConfig(50, 50, 1)) == "no half"
    assert "needs about 2,000 MiB" in str(why_not(net, ResourceConfig(100, 50, 8)))
    unknown = obstacles(scripted(info={"memory_mib": None}), Networks((net,), {"net": {8: 1e9}}))
    assert unknown(net, ResourceConfig(100, 50, 8)) is None


def test_a_file_is_the_network_of_its_graph(squeezenet: Path, tmp_path: Path) -> None:
    graph_hash = read_networks([squeezenet], ()).files[0].graph_hash
    known = [NetworkFile("zoo_net", None, graph_hash), NetworkFile("light_squeezenet", None, "other")]
    # Under the table's name, and with the graph that adaptive sampling reads.
    assert named_networks([str(squeezenet)], known, (1,)).files == (replace(known[0], path=squeezenet),)
    with pytest.raises(ConfigError, match="the table's light_squeezenet is another network"):
        named_networks([str(squeezenet)], known[1:], ())
    with pytest.raises(ConfigError, match="no network of this graph, and none called light_squeezenet"):
        named_networks([str(squeezenet)], [NetworkFile("x", None, "y")], ())
    unhashed = NetworkFile("light_squeezenet", None, None)
    found = named_networks([str(squeezenet)], [unhashed], (1,))
    assert found.files[0].graph_hash == graph_hash
    assert found.need_mib["light_squeezenet"][1] > 0
    assert named_networks([], known, ()).files == tuple(known)


def test_a_fixed_batch_in_a_file_that_can_be_rewritten_serves_all(squeezenet: Path, tmp_path: Path) -> None:
    file = tmp_path / "two.onnx"
    onnx.save(with_batch(squeezenet, 2), file)
    assert read_networks([file], (1,)).files[0].batches is None


def ready(**changes: Any) -> Request:
    return Request(**({"networks": (), "device": "cpu", "grid": GRID} | changes))


def test_a_campaign_on_this_machine_is_prepared(squeezenet: Path) -> None:
    request = ready(networks=(str(squeezenet),), grid=ResourceGrid((100,), (50, 100), (1, 2)))
    with prepared(request) as campaign:
        assert campaign.mode == QuotaMode.MEASURE
        assert len(list(campaign.plans[0].measured)) == 4 + 2
        assert campaign.specification["networks"] == {
            "light_squeezenet": campaign.networks.files[0].graph_hash
        }
        assert "memory_mib" not in campaign.specification["device"], "what is free changes between runs"
        first = campaign.specification
    with prepared(request) as again:
        assert again.specification == first


def test_a_bad_file_is_told_before_a_device_is_opened() -> None:
    with (
        pytest.raises(GraphError, match="No such file"),
        prepared(ready(networks=("no.onnx",), device="cuda:77")),
    ):
        pass


def test_the_pace_is_assumed_until_there_are_points(tmp_path: Path) -> None:
    plan = plan_network(NetworkFile("net", None), GRID)
    assert known_pace([]) == ASSUMED
    point = Point("net", ResourceConfig(50, 50, 1))
    skipped = Outcome(point, Status.SKIPPED, "x")
    assert known_pace([skipped]) == ASSUMED
    tried = [
        Outcome(point, Status.OK, started_at=datetime.now(UTC), seconds=seconds) for seconds in (1.0, 3.0)
    ]
    pace = known_pace([*tried, skipped])
    assert pace.minutes(plan) == pytest.approx((8 + 3) * 2.0 / 60)
    assert "2 points of the journal" in pace.source
    assert ASSUMED.minutes(plan) == pytest.approx((11 * 4 + 5 * 5) / 60)


def test_a_replay_needs_no_networks(tmp_path: Path) -> None:
    row = {
        "network": "net", "device": "D", "runtime": "r", "precision": "fp32", "batch": 1, "sm_pct": 50.0,
        "quota_pct": 100.0, "quota_kind": "gpu_time", "idle_ms": 0.0, "latency_ms": 1.0, "derived": False,
        "status": "ok", "campaign_id": "c", "anchor": False,
    }  # fmt: skip
    ProfileTable.from_rows([row]).write(tmp_path / "t.parquet")
    with prepared(ready(device=f"replay:{tmp_path / 't.parquet'}")) as campaign:
        assert [file.name for file in campaign.networks.files] == ["net"]
        assert set(campaign.plans[0].skipped.values()) == {"the table has no point at SM 100 %"}
        assert campaign.plans[0].anchors == ()
