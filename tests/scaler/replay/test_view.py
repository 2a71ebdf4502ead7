"""What a controller sees of the simulated cluster, and what it may do there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rapp.types import ResourceConfig
from scaler.core.decision import Decision, Drain, Reason, Resize, Start
from scaler.core.observation import GpuView, Phase
from scaler.replay.cluster import Cluster
from scaler.replay.physics import Physics, ServedFunction, served_function
from scaler.sources.service_times import Gate
from scaler.testing.fleet import times_of
from scaler.testing.policy_loop import function

QUIET = Physics(run_noise=0.0, process_noise=0.0, most_batch=4)
CONFIG = ResourceConfig(50.0, 50.0, 1)


def served(name: str = "f", gated: bool = False, memory_mib: float = 1000.0) -> ServedFunction:
    spec = function(name, max_batch=4, cold_start_s=2.0)
    times = times_of(spec)
    if gated:
        quota_pct = np.array([50.0, 100.0])
        full = times.execution_ms(times.sm_pct[:, None], times.batch[None])
        times = replace(times, gate=Gate(quota_pct, full[:, None, :] * np.array([3.0, 1.0])[:, None]))
    return served_function(spec, 100.0, times, memory_mib, 4)


def cluster(arrivals: np.ndarray, **given) -> Cluster:
    gpus = (GpuView("gpu-0", 2500.0, 8.0), GpuView("gpu-1", 2500.0, 8.0))
    return Cluster([served(**given)], {"f": arrivals}, gpus, QUIET, seed=0)


def start(id_: str = "i", gpu: str = "gpu-0", row: int = 0, config: ResourceConfig = CONFIG) -> Decision:
    return Decision((Start(id_, "f", gpu, row, config, Reason.POLICY),))


def test_counts_are_since_the_last_look_and_phases_follow_the_life_of_an_instance():
    there = cluster(np.arange(0.5, 20, 0.1))
    assert there.apply(start()) == []
    there.run_until(1.0)
    seen = there.observe()
    assert (seen.functions["f"].arrivals, seen.functions["f"].queue) == (6, 6)
    assert [one.phase for one in seen.instances] == [Phase.STARTING]
    there.run_until(3.0)
    seen = there.observe()
    (one,) = seen.instances
    assert (one.phase, one.since_s) == (Phase.READY, 2.0)
    assert seen.functions["f"].arrivals == 20
    assert seen.functions["f"].completed == one.requests == one.batches > 10
    # D = 8 ms / 0.5, H = 1.5 ms: about 16 ms a batch, all of it device time.
    assert one.device_ms == pytest.approx(16.0)
    assert one.run_ms == pytest.approx(16.0, rel=0.02)
    assert there.observe().functions["f"].completed == 0
    there.apply(Decision((Drain("i", "f", Reason.POLICY),)))
    there.run_until(4.0)
    assert there.observe().instances == ()


def test_the_latency_shown_is_the_quantile_of_the_last_ten_seconds():
    # Ten requests at once wait for each other; later ones come alone.
    there = cluster(np.concatenate([np.full(10, 2.0), np.arange(3.0, 30.0, 0.5)]))
    there.apply(start())
    shown = {}
    for second in range(1, 30):
        there.run_until(float(second))
        shown[second] = there.observe().functions["f"].latency_ms
    assert shown[1] is None
    assert shown[3] == shown[11] > 150
    assert shown[14] == pytest.approx(16.0, rel=0.05)
    assert shown[14] == pytest.approx(shown[29])


def test_a_change_of_quota_takes_its_time_and_its_price_counts_from_the_order():
    there = cluster(np.empty(0))
    there.apply(start())
    there.run_until(10.0)
    there.apply(Decision((Resize("i", "f", 100.0, 2, Reason.POLICY),)))
    assert there.world.quota[there.instances["i"].slot] == 0.5
    there.run_until(10.1)
    assert there.world.quota[there.instances["i"].slot] == 1.0
    assert there.world.batch[there.instances["i"].slot] == 2
    there.run_until(20.0)
    account = there.settle()
    assert account.gpu_seconds["f"] == pytest.approx(10 * 0.25 + 10 * 0.5)
    assert [(one.config.quota_pct, one.from_s, one.to_s) for one in account.allotments] == [
        (50.0, 0.0, 10.0), (100.0, 10.0, 20.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        (start("j", row=0, config=ResourceConfig(50.0, 60.0, 1)), "110 % of its time"),
        (start("j", row=1, config=ResourceConfig(60.0, 10.0, 1)), "110 % of its SMs"),
        (start("j", row=0, config=ResourceConfig(40.0, 10.0, 1)), "the row has SM 50 %"),
        (start("j", gpu="gpu-9"), "no GPU gpu-9"),
        (start("j", row=100), "no row 100"),
        (start("j", config=ResourceConfig(50.0, 10.0, 5)), "batch 5"),
        (start("i", gpu="gpu-1"), "instance of this name"),
        (Decision((Resize("i", "f", 50.0, 5, Reason.POLICY),)), "batch 5"),
        (Decision((Drain("x", "f", Reason.POLICY),)), "no such instance"),
    ],
)
def test_what_there_is_no_room_for_is_refused_and_said(decision, why):
    there = cluster(np.empty(0))
    there.apply(start())
    ((_, said),) = there.apply(decision)
    assert why in said
    assert [reason for _, _, reason in there.account.rejected] == [said]


def test_memory_that_is_not_there_is_refused():
    there = cluster(np.empty(0), memory_mib=900.0)
    config = ResourceConfig(25.0, 25.0, 1)
    assert there.apply(start("a", config=config)) == there.apply(start("b", config=config)) == []
    ((_, why),) = there.apply(start("c", config=config))
    assert why == "gpu-0 has 2500 MiB, not 2700"


def test_under_a_quota_that_gates_launches_a_batch_takes_what_its_table_says():
    there = cluster(np.arange(2.5, 12.0, 0.5), gated=True)
    there.apply(start())
    there.run_until(7.4)
    slow = there.world.latency[:9]
    there.apply(Decision((Resize("i", "f", 100.0, 1, Reason.POLICY),)))
    there.run_until(20.0)
    fast = there.world.latency[10:]
    # Three times as long at half the quota, and no token bucket: the same for the first and the last.
    assert np.allclose(slow, slow[0])
    assert slow[0] == pytest.approx(3 * fast[-1])
