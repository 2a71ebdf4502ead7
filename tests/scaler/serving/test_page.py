"""The status page of a real server: its files, and the JSON that it asks for each second."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

from scaler.core.codec import decision_to_json
from scaler.core.decision import Decision, FunctionOutlook, Reason, Resize
from scaler.serving.page import STATIC
from scaler.serving.testing import RunningServer

BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 192}]}
).encode()


def status(server: RunningServer, query: str = "") -> Any:
    code, text, headers = server.ask("GET", f"/status{query}")
    assert code == 200, text
    assert headers["cache-control"] == "no-store"
    assert server.token.encode() not in text
    return json.loads(text)


class TestFiles:
    def test_the_page_comes_with_all_it_needs_and_asks_nobody_else(self, server: RunningServer) -> None:
        code, page, headers = server.ask("GET", "/")
        assert (code, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in headers["content-security-policy"]
        wanted = set(re.findall(r'(?:src|href)="([^"#]+)"', page.decode()))
        assert {"static/page.js", "static/page.css"} <= wanted
        types = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        while wanted:
            path = wanted.pop()
            code, text, headers = server.ask("GET", f"/{path}")
            assert code == 200, path
            assert headers["content-type"].startswith(types[path.rpartition(".")[2]])
            assert headers["x-content-type-options"] == "nosniff"
            wanted |= {f"static/{name}" for name in re.findall(r'from "\./([^"]+)"', text.decode())}
        for file in STATIC.iterdir():
            addresses = re.findall(r"https?://[^\s\"']+", file.read_text())
            assert set(addresses) <= {"http://www.w3.org/2000/svg"}, file
            assert "innerHTML" not in file.read_text(), "what the server says is text"
            assert len(file.read_text().splitlines()) <= 300

    @pytest.mark.parametrize(
        "path",
        ["/static/", "/static/none.js", "/static/../page.py", "/static/..%2fpage.py", "/static/%2e%2e"],
    )
    def test_nothing_else_is_sent(self, server: RunningServer, path: str) -> None:
        assert server.ask("GET", path)[0] == 404


class TestStatus:
    def test_it_has_what_is_served(self, server: RunningServer) -> None:
        seen = status(server)
        assert [one["name"] for one in seen["functions"]] == ["net", "slow"]
        assert {one["id"]: one["state"] for one in seen["instances"]}["slow-0"] == "ready"
        assert seen["gpus"][0]["id"] == "cpu:0"
        assert any(one["instance"] == "slow-0" and "is ready" in one["what"] for one in seen["events"])
        assert seen["since_s"] is None

    def test_minutes_are_kept_and_what_is_new_is_told(self, server: RunningServer) -> None:
        first = status(server)
        outlook = {"net": FunctionOutlook(1.0, 7.0, 11.0, 22.0)}
        decision = Decision((Resize("net-0", "net", 59, 4, Reason.DEMAND_DOWN),), outlook)
        record = {
            "event": "decision", "mode": "advice", "controller": "test:1", "policy": "hybrid", "every_s": 60,
            "decision": json.loads(decision_to_json(decision)),
        }  # fmt: skip
        server.admin("POST", "/admin/decisions", json.dumps(record).encode())
        for _ in range(3):
            assert server.ask("POST", "/v2/models/net/infer", BODY)[0] == 200
        query = f"?boot={first['boot_id']}&since={first['now_s']}"

        def is_sampled() -> bool:
            return sum(status(server, query)["history"]["net"]["arrivals"]) == 3

        server.wait_until(is_sampled, "the requests are in the history")
        new = status(server, query)
        assert new["since_s"] == first["now_s"]
        columns = new["history"]["net"]
        assert sum(columns["arrivals"]) == 3
        assert 1 <= len(columns["at_s"]) <= 2 + new["now_s"] - first["now_s"]
        assert min(columns["at_s"]) > first["now_s"]
        assert (columns["planned_rps"][-1], columns["capacity_rps"][-1]) == (11.0, 22.0)
        assert columns["latency_ms"][-1] > 0
        (shown,) = [one for one in new["decisions"] if one["controller"] == "test:1"]
        assert (shown["mode"], shown["changes"][0]["reason"]) == ("advice", "demand falls")
        assert new["controllers"][0]["name"] == "test:1"
        assert new["controllers"][0]["kind"] == "advice"
        later = status(server, f"?boot={first['boot_id']}&since={new['now_s']}")
        assert later["decisions"] == []
        # Of another server it is asked anew.
        assert status(server, f"?boot=other&since={new['now_s']}")["since_s"] is None

    @pytest.mark.parametrize("since", ["x", "", "nan", "inf"])
    def test_nonsense_is_refused_in_one_sentence(self, server: RunningServer, since: str) -> None:
        boot = status(server)["boot_id"]
        code, text, _ = server.ask("GET", f"/status?boot={boot}&since={since}")
        assert (code, json.loads(text)["error"].partition(":")[0]) == (400, "since")

    def test_others_need_the_token(self, server: RunningServer) -> None:
        for path in ("/status", "/status.json"):
            rebound = {"Host": "evil.example"}
            code, text, headers = server.ask("GET", path, headers=rebound)
            assert (code, headers["www-authenticate"]) == (401, "Bearer")
            assert set(json.loads(text)) == {"error"}
            bearer = {**rebound, "Authorization": f"Bearer {server.token}"}
            assert server.ask("GET", path, headers=bearer)[0] == 200
        # The page itself holds nothing: it asks for the token.
        assert server.ask("GET", "/", headers={"Host": "evil.example"})[0] == 200
