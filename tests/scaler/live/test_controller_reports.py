"""What a controller tells: JSON lines, metrics, records on the backend's page; and how it is stopped."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live_parts import After, Moved, Told, cluster, core_of, simulated

from rapp.errors import ConfigError, RappError
from rapp.types import ResourceConfig
from scaler.backends.opening import Where, default_lease_file, open_lease
from scaler.backends.simulated import Simulated
from scaler.core.decision import Decision, FunctionOutlook, Reason, Resize, Start
from scaler.core.observation import FunctionView, GpuView, InstanceView, Observation, Phase
from scaler.errors import BackendError
from scaler.live.advice import Advice, FullLog
from scaler.live.clock import RealClock, Stop
from scaler.live.controller import Controller
from scaler.live.recorder import Recorder, Records
from scaler.live.tick import Happening, Mode, Tick

pytest.importorskip("prometheus_client")

from scaler.live.metrics import Metrics

CONFIG = ResourceConfig(50.0, 40.0, 2)


def tick(now_s: float = 10.0, mode: Mode = Mode.APPLIED, **given: Any) -> Tick:
    def instance(id_: str, phase: Phase) -> InstanceView:
        return InstanceView(id_, "f", "gpu-0", 0, CONFIG, phase, 1.0)

    instances = tuple(instance(phase.value, phase) for phase in Phase)
    seen = Observation(now_s, {"f": FunctionView(5)}, instances, (GpuView("gpu-0", 1.0, 1.0),))
    actions = (
        Start("f-1", "f", "gpu-0", 1, CONFIG, Reason.DEMAND_UP),
        Resize("ready", "f", 80.0, 4, Reason.BACKLOG),
    )
    dropped = ((Resize("gone", "f", 1.0, 1, Reason.POLICY), "there is no such instance"),)
    decision = Decision(actions, {"f": FunctionOutlook(5.0, 6.0, 7.5, 9.0)}, dropped)
    return Tick(3, seen, given.get("decision", decision), mode, (("f-1", "no room"),), 0.012)


def test_a_line_says_what_why_and_what_became_of_it() -> None:
    out = io.StringIO()
    advice = Advice(out)
    advice.on_tick(tick())
    advice.on_happening(Happening.SKIPPED, "late", 2)
    first, second = map(json.loads, out.getvalue().splitlines())
    assert [one["reason"] for one in first["actions"]] == ["demand rises", "requests wait"]
    assert first["actions"][0]["config"] == {"sm_pct": 50.0, "quota_pct": 40.0, "batch": 2}
    assert first["refused"] == [{"id": "f-1", "why": "no room"}]
    assert first["dropped"][0]["why"] == "there is no such instance"
    assert first["functions"]["f"]["upper_rps"] == 7.5
    assert (first["mode"], first["took_ms"]) == ("applied", 12.0)
    assert (second["event"], second["ticks"]) == ("ticks were skipped", 2)


def test_a_tick_at_which_nothing_is_to_do_may_be_left_out() -> None:
    out = io.StringIO()
    Advice(out, each_tick=False).on_tick(tick(decision=Decision()))
    assert out.getvalue() == ""
    Advice(out, each_tick=False).on_tick(tick())
    assert out.getvalue().count("\n") == 1


def test_metrics_are_those_of_the_last_tick_and_counts_of_all() -> None:
    metrics = Metrics()
    port = metrics.serve(0)
    metrics.on_happening(Happening.LEADS, "me")
    metrics.on_tick(tick())
    metrics.on_tick(tick(mode=Mode.FAILED))
    metrics.on_happening(Happening.SKIPPED, "late", 3)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    for line in (
        "rapp_autoscale_leads 1.0",
        'rapp_autoscale_ticks_total{mode="failed"} 1.0',
        'rapp_autoscale_changes_total{function="f",kind="start",mode="applied",reason="demand rises"} 1.0',
        'rapp_autoscale_instances{function="f",phase="lost"} 1.0',
        # Three of four instances hold 50 % x 40 %: what was lost holds nothing.
        'rapp_autoscale_gpu_share{function="f"} 0.6',
        'rapp_autoscale_upper_rps{function="f"} 7.5',
        "rapp_autoscale_refused_changes_total 2.0",
        'rapp_autoscale_happenings_total{what="ticks were skipped"} 3.0',
        "rapp_autoscale_tick_seconds_count 2.0",
    ):
        assert any(one.startswith(line) for one in text.splitlines()), line
    # What was not observed is absent, not 0.
    metrics.on_tick(tick(decision=Decision(outlook={"f": FunctionOutlook(None, 1.0, 1.0, 1.0)})))
    assert metrics.registry.get_sample_value("rapp_autoscale_rate_rps", {"function": "f"}) is None
    metrics.on_happening(Happening.LOST_LEASE, "")
    assert metrics.registry.get_sample_value("rapp_autoscale_leads") == 0.0


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--metrics-port {port} at 127.0.0.1: it is taken"):
            Metrics().serve(port)


class Page:
    """A backend's page; it breaks when it is told."""

    def __init__(self) -> None:
        self.kept: list[Mapping[str, Any]] = []
        self.breaks = False

    def record(self, content: Mapping[str, Any]) -> None:
        if self.breaks:
            raise BackendError("413: too large")
        self.kept.append(content)


def test_what_changes_is_recorded_at_once_and_the_rest_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = Page()
    recorder = Recorder(page)
    for second in range(20):
        one = tick(float(second))
        recorder.on_tick(one if second in (7, 8) else replace(one, decision=Decision()))
    assert [one["now_s"] for one in page.kept] == [0, 5, 7, 8, 13, 18]
    assert page.kept[2]["decision"]["actions"][0]["reason"] == "demand rises"
    recorder.on_tick(tick(100.0, Mode.STANDBY))
    assert len(page.kept) == 6, "the one that leads says what is done"
    page.breaks = True
    with caplog.at_level(logging.WARNING):
        recorder.on_tick(tick())
        recorder.on_tick(tick())
    assert caplog.text.count("lacks decisions") == 1
    assert isinstance(page, Records)


def test_a_log_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RappError, match="cannot be written"):
        FullLog(tmp_path)


def test_a_signal_ends_the_wait_at_once_even_in_the_middle_of_it() -> None:
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    try:
        begun = time.monotonic()
        sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        sender.start()
        RealClock().wait_until(begun + 30.0, stop)
        sender.join()
        assert stop.is_set()
        assert time.monotonic() - begun < 10.0
        # It stays set.
        RealClock().wait_until(begun + 60.0, stop)
        assert time.monotonic() - begun < 10.0
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_stopped_controller_lets_go_of_lease_and_backend() -> None:
    clock, told, released = Moved(), Told(), []

    class Led:
        holder, term, duration_s = "me", 1, 5.0

        def lead(self) -> bool:
            return True

        def release(self) -> None:
            released.append(True)
            raise BackendError("nobody answers")

    backend = simulated(clock.now_s)
    controller = Controller(core_of(), backend, apply=True, lease=Led(), reporters=[told], clock=clock)
    controller.run(After(3))
    assert released == [True]
    assert told.happened(Happening.NO_LEASE) == ["it is not released, and expires: nobody answers"]
    with pytest.raises(BackendError, match="closed"):
        backend.observe()


def test_a_function_that_is_not_observed_is_named_once() -> None:
    clock, told = Moved(), Told()

    class Partly(Simulated):
        def observe(self) -> Observation:
            seen = super().observe()
            return replace(seen, functions={}) if 3 <= clock.s < 6 else seen

    Controller(core_of(), Partly(cluster(), clock.now_s), reporters=[told], clock=clock).run(After(9))
    assert [one.split(":")[0] for one in told.happened(Happening.UNSEEN)] == ["f", "none"]


def test_a_bug_keeps_its_traceback_and_the_lease_is_let_go_of() -> None:
    clock, released = Moved(), []

    class Led:
        holder, term, duration_s = "me", 1, 5.0

        def lead(self) -> bool:
            return True

        def release(self) -> None:
            released.append(True)

    class Wrong:
        def on_tick(self, tick: Tick) -> None:
            raise ZeroDivisionError

        def on_happening(self, what: Happening, detail: str, number: int = 1) -> None: ...

    backend = simulated(clock.now_s)
    with pytest.raises(ZeroDivisionError):
        Controller(core_of(), backend, apply=True, lease=Led(), reporters=[Wrong()], clock=clock).run(Stop())
    assert released == [True]


def test_controllers_of_one_backend_share_a_lease_and_of_two_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_lease_file("local:127.0.0.1:8000") != default_lease_file("local:127.0.0.1:8001")
    first, second, third = (
        open_lease(Where("local"), name, 5.0) for name in ("local:a:1", "local:a:1", "local:a:2")
    )
    assert first.lead()
    assert not second.lead()
    assert third.lead()
