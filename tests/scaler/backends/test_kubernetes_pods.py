"""What is written into pods and read from nodes: names that other programs know, and laws of our own."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("kubernetes")
sys.path.insert(0, str(Path(__file__).parent))

import yaml
from fake_kubernetes import node

from rapp.types import ResourceConfig
from scaler.backends.kubernetes_nodes import NodeGpu, gpus_of
from scaler.backends.kubernetes_pods import instance_of, pod_name, pod_of, selector
from scaler.backends.kubernetes_template import Templates
from scaler.core.decision import Reason, Start
from scaler.core.observation import GpuView, Phase
from scaler.policies.base import new_id

UUID = "GPU-03f69c50-207a-2038-9b45-23cac89cb67d"
GPU = NodeGpu(GpuView(UUID, 16_384.0, 8.0), "node-a", 1, UUID)
PLAIN: dict[str, Any] = {"spec": {"containers": [{"name": "worker", "image": "worker:1"}]}}
MANIFESTS = Path(__file__).parents[3] / "scripts" / "kubernetes"

names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
percents = st.floats(0.1, 100.0)


def started(template: dict[str, Any], function: str = "f", **config: Any) -> dict[str, Any]:
    given = {"sm_pct": 40.0, "quota_pct": 60.0, "batch": 2} | config
    start = Start(f"{function}-1", function, UUID, 3, ResourceConfig(**given), Reason.POLICY)
    pod = pod_of(start, "rapp", GPU, template, 1500.0)
    return pod | {"metadata": pod["metadata"] | {"creationTimestamp": "2026-01-01T00:00:00Z"}}


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}


@given(names, percents, percents, st.integers(1, 64))
def test_a_pod_says_again_what_it_was_made_for(function: str, sm: float, quota: float, batch: int) -> None:
    one = instance_of(started(PLAIN, function, sm_pct=sm, quota_pct=quota, batch=batch))
    assert one is not None
    assert (one.id, one.function, one.gpu, one.row) == (f"{function}-1", function, UUID, 3)
    assert one.config == ResourceConfig(sm, quota, batch)
    assert (one.phase, one.since_s) == (Phase.STARTING, 1767225600.0)


@given(names, st.floats(0, 1e9), st.integers(0, 500))
def test_names_and_labels_are_ones_that_kubernetes_takes(function: str, now_s: float, number: int) -> None:
    id_ = new_id(function, now_s, number)
    name = pod_name(id_)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
    assert name == pod_name(id_)
    assert pod_name(id_) != pod_name(new_id(function, now_s, number + 1))
    for value in started(PLAIN, function)["metadata"]["labels"].values():
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value)


def test_ids_that_differ_in_what_a_name_cannot_hold_have_pods_of_their_own() -> None:
    assert len({pod_name(id_) for id_ in ("A-1", "a-1", "a.1", "a_1", "a-" + "x" * 80, "a-" + "x" * 81)}) == 6


def test_mps_is_told_partition_and_memory() -> None:
    told = environment(started(PLAIN, sm_pct=12.5))
    assert told["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "12.5"
    assert told["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=1500M"
    assert told["NVIDIA_VISIBLE_DEVICES"] == UUID
    assert (told["RAPP_FUNCTION"], told["RAPP_QUOTA_PCT"], told["RAPP_BATCH"]) == ("f", "60", "2")


def test_hami_is_told_where_the_template_asks_for_it() -> None:
    template = {
        "spec": {
            "containers": [
                {
                    "name": "worker",
                    "env": [{"name": "RAPP_BATCH", "value": "99"}, {"name": "MINE", "value": "1"}],
                    "resources": {
                        "limits": {
                            "nvidia.com/gpu": "1",
                            "nvidia.com/gpumem": "0",
                            "nvidia.com/gpucores": "0",
                        }
                    },
                }
            ]
        }
    }
    before = json.dumps(template)
    pod = started(template)
    assert json.dumps(template) == before
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    # The cap that no quota of an instance of this partition goes beyond.
    assert limits == {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "1500", "nvidia.com/gpucores": "40"}
    assert pod["metadata"]["annotations"]["nvidia.com/use-gpuuuid"] == UUID
    told = environment(pod)
    assert (told["RAPP_BATCH"], told["MINE"]) == ("2", "1")
    # The device plugin hands the GPU out.
    assert "NVIDIA_VISIBLE_DEVICES" not in told


def test_it_goes_to_its_node_through_the_scheduler() -> None:
    template = {"spec": {**PLAIN["spec"], "affinity": {"podAffinity": {"kept": True}}}}
    spec = started(template)["spec"]
    assert "nodeName" not in spec
    assert spec["affinity"]["podAffinity"] == {"kept": True}
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["node-a"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rapp/sm-pct", "0"),
        ("rapp/batch", "many"),
        ("rapp/quota-pct", "200"),
        ("rapp/row", ""),
        ("rapp/id", None),
    ],
)
def test_a_pod_that_says_nonsense_is_no_instance(key: str, value: str | None) -> None:
    pod = started(PLAIN)
    if value is None:
        del pod["metadata"]["annotations"][key]
    else:
        pod["metadata"]["annotations"][key] = value
    assert instance_of(pod) is None


def test_gpus_as_feature_discovery_labels_them() -> None:
    there = gpus_of([node("b", 1), node("a", 2)], set())
    assert [(gpu.view.id, gpu.node, gpu.index, gpu.uuid) for gpu in there.values()] == [
        ("a:0", "a", 0, None), ("a:1", "a", 1, None), ("b:0", "b", 0, None),
    ]  # fmt: skip
    start = Start("f-1", "f", "a:1", 0, ResourceConfig(40.0, 60.0, 2), Reason.POLICY)
    pod = pod_of(start, "rapp", there["a:1"], PLAIN, 1500.0)
    assert environment(pod)["NVIDIA_VISIBLE_DEVICES"] == "1"
    assert there["a:0"].view == GpuView("a:0", 16_384.0, 7.96)


def test_gpus_as_hami_registers_them() -> None:
    devices = [
        {"id": UUID, "count": 10, "devmem": 32768, "devcore": 100, "mode": "hami-core", "health": True},
        {"id": "GPU-broken", "count": 10, "devmem": 32768, "devcore": 100, "health": False},
    ]
    one = node("a", 2)
    # Ten replicas a GPU are not ten GPUs.
    one["status"]["allocatable"] |= {"cpu": "8", "nvidia.com/gpu": "20"}
    one["metadata"]["annotations"] = {"hami.io/node-nvidia-register": json.dumps(devices)}
    there = gpus_of([one], set())
    assert there == {UUID: NodeGpu(GpuView(UUID, 32_768.0, 8.0), "a", 0, UUID)}


def test_a_node_that_does_not_say_enough_is_left_out_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, warned = node("a", 2), set[str]()
    one["metadata"]["labels"] = {}
    with caplog.at_level(logging.WARNING):
        assert gpus_of([one], warned) == {}
        assert gpus_of([one], warned) == {}
    assert caplog.text.count("left out") == 1
    assert "install GPU feature discovery or HAMi" in caplog.text


def test_the_manifests_ask_for_what_the_backend_calls_and_no_more() -> None:
    documents = list(yaml.safe_load_all((MANIFESTS / "rbac.yaml").read_text()))
    rules: dict[tuple[str, str, str], set[str]] = {}
    for one in documents:
        for rule in one["rules"] if one["kind"] in ("Role", "ClusterRole") else ():
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    rules.setdefault((one["kind"], group, resource), set()).update(rule["verbs"])
    assert rules == {
        ("Role", "", "pods"): {"get", "list", "watch", "create", "patch", "delete"},
        ("Role", "coordination.k8s.io", "leases"): {"get", "create", "update"},
        ("ClusterRole", "", "nodes"): {"list", "watch"},
    }


def test_the_template_of_the_example_is_one(tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all((MANIFESTS / "autoscale.yaml").read_text()))
    config = next(one for one in documents if one["kind"] == "ConfigMap")
    (tmp_path / "pod.yaml").write_text(config["data"]["pod.yaml"])
    pod = started(Templates.read(tmp_path / "pod.yaml").of("anything"))
    assert environment(pod)["RAPP_INSTANCE"] == "f-1"
    assert selector("rapp") == "app.kubernetes.io/managed-by=rapp,rapp/app=rapp"
