"""Pictures of the live status page: a server of light networks, load on it, a controller's decisions.

    python scripts/live_page_screenshot.py OUT [--functions 2] [--dormant 0] [--seconds 20]

Writes page-<width>-<light|dark>.png. Needs Chromium (Debian: chromium) and the extra serve.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rapp.types import ResourceConfig
from scaler.core.codec import decision_to_json
from scaler.core.decision import Action, Decision, Drain, FunctionOutlook, Reason, Resize, Start
from scaler.serving.testing import RunningServer, random_network, running
from scaler.testing.browser import Browser

BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 3, 64, 64], "datatype": "FP32", "data": [0.5] * 12288}]}
).encode()


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--functions", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load before the pictures")
    parser.add_argument("--dormant", type=int, default=0, help="functions without instances beside them")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as opened:
        folder = Path(name)
        random_network(folder / "net.onnx", size=64, layers=3)
        server = opened.enter_context(running(folder, _functions(given.functions, given.dormant)))
        browser = opened.enter_context(Browser.started(folder / "profile"))
        server.wait_ready()
        ends = threading.Event()
        opened.callback(ends.set)
        names = [one["name"] for one in _functions(given.functions, given.dormant)]
        for number, function in enumerate(names[: given.functions]):
            thread = threading.Thread(
                target=_load, args=(server, function, 10.0 + 5 * number, ends), daemon=True
            )
            thread.start()
        browser.open(server.url)
        end_s, tick = time.monotonic() + given.seconds, 0
        while time.monotonic() < end_s:
            _decide(server, names[: given.functions], tick)
            tick += 1
            time.sleep(1.0)
        # One of each state: with a worker that was killed, the next screens show it lost or starting.
        os.kill(server.pids()[f"{names[0]}-0"], signal.SIGKILL)
        for width in (1280, 480):
            for dark in (False, True):
                file = given.out / f"page-{width}-{'dark' if dark else 'light'}.png"
                browser.screenshot(file, width, dark=dark)
                print(file)
        for problem in browser.problems:
            print(f"the page: {problem}")


def _functions(number: int, dormant: int) -> list[dict[str, Any]]:
    """Those that serve are on two rows of half of the cores each; every third has an objective that is too
    short."""
    quota = 120 // max(number, 2)
    served = [
        {"name": f"vision-{k}", "network": "net.onnx", "slo_ms": 4 if k % 3 == 1 else 40, "max_batch": 8,
         "initial": {"sm_pct": 50, "quota_pct": quota, "batch": 2}}
        for k in range(number)
    ]  # fmt: skip
    return served + [
        {"name": f"dormant-{k}", "network": "net.onnx", "slo_ms": 200, "min_instances": 0}
        for k in range(dormant)
    ]


def _load(server: RunningServer, function: str, rps: float, ends: threading.Event) -> None:
    begun_s = time.monotonic()
    while not ends.is_set():
        now_rps = rps * (1.2 + math.sin((time.monotonic() - begun_s) / 6))
        with contextlib.suppress(OSError):
            server.ask("POST", f"/v2/models/{function}/infer", BODY)
        ends.wait(1 / max(now_rps, 1.0))


def _decide(server: RunningServer, names: list[str], tick: int) -> None:
    """What a controller would do, so that there is something to see of each kind of change."""
    there = {one["id"]: one for one in server.observation()["instances"]}
    name = names[tick % len(names)]
    actions: list[Action] = []
    if tick % 4 == 3 and f"{names[0]}-extra" not in there:
        actions.append(
            Start(f"{names[0]}-extra", names[0], "cpu:0", 0, ResourceConfig(50, 15, 4), Reason.DEMAND_UP)
        )
    elif tick % 17 == 13 and f"{names[0]}-extra" in there:
        actions.append(Drain(f"{names[0]}-extra", names[0], Reason.DEMAND_DOWN))
    elif tick % 3 == 0:
        quota = there[f"{name}-0"]["quota_pct"]
        actions.append(
            Resize(f"{name}-0", name, quota - 1 if quota > 8 else quota + 6, 2, Reason.DEMAND_DOWN)
        )
    outlook = {
        one: FunctionOutlook(10.0, 15.0, 22 + 5 * k + 6 * math.sin(tick / 5), 30.0 + 5 * k)
        for k, one in enumerate(names)
    }
    decision = Decision(tuple(actions), outlook)
    refused = server.admin("POST", "/admin/apply", decision_to_json(decision).encode())["refused"]
    record = {
        "event": "decision", "mode": "applied", "controller": "host:4711:c0ffee", "policy": "hybrid",
        "decision": json.loads(decision_to_json(decision)), "refused": refused,
    }  # fmt: skip
    server.admin("POST", "/admin/decisions", json.dumps(record).encode())


if __name__ == "__main__":
    main()
