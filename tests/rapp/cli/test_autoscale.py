"""`rapp autoscale` as a user runs it, on a fake API server of Kubernetes and a fake gateway, over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes")
sys.path.insert(0, str(Path(__file__).parents[2] / "scaler" / "backends"))

from fake_kubernetes import FakeKubernetes, node
from fake_kubernetes_http import gateway, served

FUNCTIONS = """
version: 1
functions:
  - {name: f, network: f, slo_ms: 120, memory_mib: 1500, cold_start_s: 1}
"""
POD = """
kind: Pod
spec: {containers: [{name: worker, image: worker}]}
"""
RPS = 50
RUNS_S = 60


class Cluster:
    """Files of a user whose kubeconfig names the fake server, and how `rapp autoscale` is run on it."""

    def __init__(self, folder: Path, state: FakeKubernetes, server: str, gateway_url: str) -> None:
        self.folder, self.state = folder, state
        (folder / "functions.yaml").write_text(FUNCTIONS)
        (folder / "pod.yaml").write_text(POD)
        (folder / "token").write_text("0123456789abcdef")
        (folder / "token").chmod(0o600)
        (folder / "kubeconfig").write_text(
            json.dumps({
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "contexts": [
                    {"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "gpu"}}
                ],
                "clusters": [{"name": "fake", "cluster": {"server": server}}],
                "users": [{"name": "fake", "user": {}}],
            })
        )  # fmt: skip
        self.arguments = [
            str(folder / "functions.yaml"), "--backend", "kubernetes", "--plan", "constant:8,1.5",
            "--url", gateway_url, "--token-file", str(folder / "token"),
            "--template", str(folder / "pod.yaml"), "--tick", "0.2",
        ]  # fmt: skip
        self.environment = os.environ | {"KUBECONFIG": str(folder / "kubeconfig"), "OMP_NUM_THREADS": "1"}

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable, "-c", "from rapp.cli.main import main; main()", "autoscale",
                *self.arguments, *arguments,
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
        )  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    began_s = time.monotonic()

    def observation() -> dict[str, Any]:
        arrivals = round(RPS * (time.monotonic() - began_s))
        function = {
            "arrivals": arrivals, "completed": arrivals, "late": 0, "refused": 0, "queue": 0, "in_flight": 0,
            "latency_ms": 20.0,
        }  # fmt: skip
        return {"version": 1, "boot_id": "a", "functions": {"f": function}, "instances": []}

    state = FakeKubernetes()
    state.put("nodes", node("node-a"))
    with served(state) as server, gateway(observation, "0123456789abcdef") as url:
        yield Cluster(tmp_path, state, server, url)


@pytest.fixture
def advised(
    cluster: Cluster, rapp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """`rapp autoscale` in this process: the lines that it printed."""
    # The client reads KUBECONFIG when it is imported.
    location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(location, cluster.environment["KUBECONFIG"])

    def run(*arguments: object) -> list[dict[str, Any]]:
        ended = rapp("autoscale", *cluster.arguments, *arguments)
        assert ended.code == 0, ended.err
        return [json.loads(line) for line in ended.out.splitlines()]

    return run


def test_advice_is_json_lines_with_reasons_and_changes_nothing(
    cluster: Cluster, advised: Callable[..., Any]
) -> None:
    lines = advised("--each-tick", "--ticks", "5", "--log", cluster.folder / "log.jsonl")
    assert (lines[0]["event"], lines[-1]["event"]) == ("started", "stopped")
    decisions = [line for line in lines if line["event"] == "decision"]
    assert {line["mode"] for line in decisions} == {"advice"}
    start = decisions[-1]["actions"][0]
    assert (start["kind"], start["function"], start["gpu"]) == ("start", "f", "node-a:0")
    assert start["reason"] == "demand rises" or start["reason"] == "below the minimum of instances"
    assert decisions[-1]["functions"]["f"]["rate_rps"] == pytest.approx(RPS, rel=0.5)
    assert cluster.state.objects["pods"] == {}
    assert cluster.state.objects["leases"] == {}
    full = [json.loads(line) for line in (cluster.folder / "log.jsonl").read_text().splitlines()]
    assert sum(line["event"] == "decision" for line in full) == len(decisions) >= 2


def test_it_applies_leads_shows_metrics_and_ends_on_sigterm(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = cluster.spawn("--apply", "--state", str(cluster.folder / "state"), "--metrics-port", str(port))
    try:
        until(lambda: cluster.state.objects["pods"], process)
        until(lambda: any(is_ready(pod) for pod in list(cluster.state.objects["pods"].values())), process)
        lease = cluster.state.objects["leases"]["rapp-autoscale-rapp"]
        assert lease["spec"]["holderIdentity"]
        until(lambda: 'phase="ready"' in scraped(port), process)
        metrics = scraped(port)
        assert "rapp_autoscale_leads 1.0" in metrics
        assert 'rapp_autoscale_upper_rps{function="f"}' in metrics
        assert 'rapp_autoscale_changes_total{function="f",kind="start",mode="applied"' in metrics
        process.terminate()
        out, err = process.communicate(timeout=RUNS_S)
        assert process.returncode == 0, err
    finally:
        process.kill()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines[:2]] == ["started", "leads"]
    assert lines[-1]["event"] == "stopped"
    # The next one leads at once, and the instances serve on.
    assert cluster.state.objects["leases"]["rapp-autoscale-rapp"]["spec"]["holderIdentity"] == ""
    assert any(is_ready(pod) for pod in cluster.state.objects["pods"].values())
    assert json.loads((cluster.folder / "state").read_text())["state"]["policy"] == "hybrid"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--backend", "nomad"), "--backend nomad: there are local, ray, kubernetes"),
        (("--backend", "kubernetes"), "--backend kubernetes needs --template: the pods to make"),
        (("--backend", "local", "--namespace", "x"), "--namespace goes with --backend kubernetes"),
        (("--backend", "ray", "--url", "x"), "--url goes with --backend local or kubernetes"),
        (("--backend", "ray", "--lease", "x"), "--lease goes with --backend local"),
        (("--policy", "static"), "policy static: it has to know the demand beforehand"),
        (("--policy", "hibrid"), "no policy 'hibrid' (near: hybrid)"),
        (("--risk", "none"), "--risk none: it is mean or upper"),
        (("--tick", "0"), "tick_s is 0"),
        (("--lease-s", "1"), "--lease-s 1: it must be above two ticks"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, rapp: Callable[..., Any], options: tuple[str, ...], line: str
) -> None:
    (tmp_path / "functions.yaml").write_text(FUNCTIONS)
    ended = rapp("autoscale", tmp_path / "functions.yaml", "--plan", "constant:8,1.5", *options)
    assert ended.line().startswith(line)


def test_a_server_that_is_not_there_is_waited_for(cluster: Cluster, advised: Callable[..., Any]) -> None:
    cluster.state.close()
    config = (cluster.folder / "kubeconfig").read_text()
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    server = json.loads(config)["clusters"][0]["cluster"]["server"]
    (cluster.folder / "kubeconfig").write_text(config.replace(server, nobody))
    lines = advised("--ticks", "6")
    blind = [line["detail"] for line in lines if line["event"] == "nothing could be observed"]
    assert "cannot be reached" in blind[0]
    assert blind[0].endswith("next try in 0.2 s")
    assert not any(line["event"] == "decision" for line in lines)


def is_ready(pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("conditions"))


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def until(holds: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    end_s = time.monotonic() + RUNS_S
    while not holds():
        assert process.poll() is None, process.communicate()[1]
        if time.monotonic() > end_s:
            process.send_signal(signal.SIGKILL)
            raise AssertionError(process.communicate())
        time.sleep(0.05)
