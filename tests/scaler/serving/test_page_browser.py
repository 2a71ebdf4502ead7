"""The status page in a browser: what a person sees of a server while it works, ends, and comes back."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

from rapp.types import ResourceConfig
from scaler.core.codec import decision_to_json
from scaler.core.decision import Decision, FunctionOutlook, Reason, Resize, Start
from scaler.serving.testing import RunningServer, running
from scaler.testing.browser import Browser, chromium

FUNCTIONS = [
    {"name": "net", "network": "net.onnx", "slo_ms": 500, "max_batch": 4,
     "initial": {"sm_pct": 50, "quota_pct": 60, "batch": 4}},
    {"name": "second", "network": "net.onnx", "slo_ms": 1e-3, "min_instances": 0, "max_batch": 4,
     "initial": {"sm_pct": 50, "quota_pct": 20, "batch": 1}},
]  # fmt: skip
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 192}]}
).encode()
EVIL = "<b onclick=alert(1)>x</b>"

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="needs Chromium (Debian: apt-get install chromium)"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) % 2 != 0, reason="needs an even number of cores"),
]


def decide(server: RunningServer) -> None:
    """What a controller does: apply a decision, and leave a record of it."""
    actions = (
        Resize("net-0", "net", 30, 2, Reason.DEMAND_DOWN),
        Start(EVIL, "net", "cpu:0", 0, ResourceConfig(50, 15, 1), Reason.BACKLOG),
        Start("no", "net", "cpu:0", 0, ResourceConfig(50, 90, 1), Reason.BACKLOG),
    )
    decision = Decision(actions, {"net": FunctionOutlook(1.0, 2.0, 123.0, 456.0)})
    refused = server.admin("POST", "/admin/apply", decision_to_json(decision).encode())["refused"]
    record = {
        "event": "decision", "mode": "applied", "controller": "<i>host</i>:1", "policy": "hybrid",
        "every_s": 60,
        "decision": json.loads(decision_to_json(decision)), "refused": refused,
    }  # fmt: skip
    server.admin("POST", "/admin/decisions", json.dumps(record).encode())


def test_what_a_person_sees(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes((folder / "net.onnx").read_bytes())
    with Browser.started(tmp_path / "profile") as browser:
        with running(tmp_path, FUNCTIONS) as server:
            port = server.port
            browser.open(server.url)
            browser.wait("document.body.innerText.includes('Live')", "it is live")
            server.wait_ready()
            _see_work(browser, server)
            _see_loss(browser, server)
            _use_the_keyboard(browser)
            _see_all_widths(browser, tmp_path)
        browser.wait("document.body.innerText.includes('Connection lost')", "it says that nobody answers")
        assert browser.run("document.body.classList.contains('stale')")
        browser.problems.clear()
        with running(tmp_path, FUNCTIONS[:1], "--port", str(port)):
            browser.wait(
                "document.querySelectorAll('#functions > details').length === 1",
                "it goes on with the next server",
            )
            assert "started anew" in browser.text("#connection")
            assert "demand falls" not in browser.text("#decisions"), "that was of the server before"
        assert [one for one in browser.problems if "ERR_CONNECTION" not in one] == []


def _see_work(browser: Browser, server: RunningServer) -> None:
    """Load, violations, decisions and their reasons show without the page being loaded anew."""
    browser.run("window.still = true")
    decide(server)
    for function in ("net", "second", "net"):
        server.ask("POST", f"/v2/models/{function}/infer", BODY, {"x-request-timeout-ms": "300"})
    browser.wait(
        "document.querySelector('#decisions').innerText.includes('demand falls')", "the decision shows"
    )
    decisions = browser.text("#decisions")
    assert f"start {EVIL} with SM 50 %, quota 15 %, batch 1" in decisions
    assert "resize net-0 to quota 30 %, batch 2" in decisions
    assert "requests wait" in decisions
    assert "refused: " in decisions
    assert "<i>host</i>:1 (hybrid): leads" in browser.text("#controllers")
    browser.wait(
        "document.querySelector('#functions').innerText.includes('123 / 456 /s')", "the forecast shows"
    )
    # `second` has no instance: its request missed its deadline.
    browser.wait(
        "document.querySelectorAll('#functions > details')[1].innerText.includes('too many')", "a violation"
    )
    assert "0 / 1 %" in browser.text("#functions > details:first-child summary > .violations")
    browser.wait(
        "document.querySelectorAll('.instance.ready').length >= 3", "a box of each instance, and the legend"
    )
    boxes = browser.run("[...document.querySelectorAll('#gpus .instance')].map((one) => one.ariaLabel)")
    assert f"{EVIL} of net: ready; SM 50 %, quota 15 %, batch 1" in boxes
    assert browser.run("document.querySelectorAll('b[onclick], i:not([class]):not(:empty)').length") == 0
    lines = browser.run(
        "[...document.querySelectorAll('.load-chart .line.load')].map((one) => one.getAttribute('d'))"
    )
    assert all(line.startswith("M") for line in lines)
    assert browser.run("window.still") is True


def _see_loss(browser: Browser, server: RunningServer) -> None:
    os.kill(server.pids()["net-0"], signal.SIGKILL)
    browser.wait("document.querySelector('#events').innerText.includes('starts again in')", "the loss shows")


def _use_the_keyboard(browser: Browser) -> None:
    """Search and open a function by keys alone."""
    browser.run("document.querySelector('#search').focus()")
    browser.run(
        "document.querySelector('#search').value = 'SEC';"
        "document.querySelector('#search').dispatchEvent(new Event('input'))"
    )
    assert browser.run("document.querySelectorAll('#functions > details').length") == 1
    assert "1 of 2" in browser.text("#shown")
    for _ in range(2):
        browser.press("Tab")
    focused = "document.activeElement.closest('details')?.open"
    assert browser.run(focused) is True, browser.run("document.activeElement.outerHTML")
    browser.press("Enter")
    assert browser.run(focused) is False
    # It stays where it is over what comes each second.
    browser.run("new Promise((done) => setTimeout(done, 1200))")
    assert browser.run(focused) is False
    browser.press("Enter")
    browser.run("document.querySelector('#search').value = ''")


def _see_all_widths(browser: Browser, folder: Path) -> None:
    for width in (1280, 480):
        for dark in (False, True):
            browser.resize(width, dark=dark)
            assert browser.run("document.documentElement.scrollWidth") <= width, "it does not scroll sideways"
            assert browser.run("getComputedStyle(document.body).backgroundColor") == (
                "rgb(20, 23, 26)" if dark else "rgb(246, 247, 248)"
            )
    browser.screenshot(folder / "page.png", 480)
    assert (folder / "page.png").read_bytes().startswith(b"\x89PNG")
