"""Parts of the status page: who may look, what records say, what the last minutes were."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="needs the extra serve")

from starlette.requests import Request

from rapp.types import ResourceConfig
from scaler.core.codec import decision_to_json
from scaler.core.decision import Decision, Drain, FunctionOutlook, Reason, Resize, Start
from scaler.serving import page_history, page_records
from scaler.serving.counts import FunctionCounts
from scaler.serving.page_access import may_look
from scaler.serving.page_history import History, Outlook

TOKEN = "0123456789abcdef"


def asked(client: str | None, headers: dict[str, str]) -> Request:
    listed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "headers": listed, "client": None if client is None else (client, 1)}
    return Request(scope)


@pytest.mark.parametrize(
    ("client", "headers", "may"),
    [
        ("127.0.0.1", {"Host": "127.0.0.1:8000"}, True),
        ("127.0.0.9", {"Host": "localhost:8000"}, True),
        ("::1", {"Host": "[::1]:8000"}, True),
        ("::ffff:127.0.0.1", {"Host": "localhost"}, True),
        ("10.0.0.7", {"Host": "127.0.0.1:8000"}, False),
        ("::ffff:10.0.0.7", {"Host": "localhost"}, False),
        (None, {"Host": "localhost"}, False),
        # DNS rebinding: somebody's browser on this machine, at a page of another site.
        ("127.0.0.1", {"Host": "evil.example:8000"}, False),
        ("127.0.0.1", {"Host": "localhost.evil.example"}, False),
        ("127.0.0.1", {"Host": "[::1"}, False),
        ("127.0.0.1", {}, False),
        # A proxy on this machine asks for whoever asks it.
        ("127.0.0.1", {"Host": "localhost", "X-Forwarded-For": "10.0.0.7"}, False),
        ("127.0.0.1", {"Host": "localhost", "Forwarded": "for=10.0.0.7"}, False),
        ("10.0.0.7", {"Host": "serve.example", "Authorization": f"Bearer {TOKEN}"}, True),
        ("10.0.0.7", {"Host": "serve.example", "Authorization": f"Bearer {TOKEN}x"}, False),
    ],
)
def test_who_may_look(client: str | None, headers: dict[str, str], may: bool) -> None:
    assert may_look(asked(client, headers), TOKEN) is may


# --- records ------------------------------------------------------------------------------------------------

OUTLOOK = FunctionOutlook(4.0, 5.0, 8.0, 12.0)
DECISION = Decision(
    (
        Start("<b>a</b>", "f", "cpu:0", 0, ResourceConfig(50, 40, 4), Reason.DEMAND_UP),
        Resize("b", "f", 12.5, 2, Reason.DEMAND_DOWN),
    ),
    {"f": OUTLOOK},
    ((Drain("c", "f", Reason.IDLE), "it drains already"),),
)


def record(number: int, at_s: float, **content: Any) -> dict[str, Any]:
    return {"number": number, "recorded_s": at_s, "event": "decision", **content}


def decided(number: int, at_s: float, mode: str, who: str, rps: float = 8.0) -> dict[str, Any]:
    decision = Decision(DECISION.actions, {"f": FunctionOutlook(4.0, 5.0, rps, 12.0)}, DECISION.dropped)
    content = json.loads(decision_to_json(decision))
    return record(number, at_s, mode=mode, controller=who, policy="hybrid", decision=content)


def test_changes_are_said_in_words_with_what_became_of_them() -> None:
    one = decided(3, 10.0, "applied", "a") | {"refused": [{"id": "b", "why": "no room"}]}
    (shown,) = page_records.decisions([one], 9.0)
    assert [(c["kind"], c["id"], c["to"], c["reason"], c["why_not"]) for c in shown["changes"]] == [
        ("start", "<b>a</b>", "SM 50 %, quota 40 %, batch 4", "demand rises", None),
        ("resize", "b", "quota 12.5 %, batch 2", "demand falls", "refused: no room"),
        ("drain", "c", "", "no request for long", "dropped: it drains already"),
    ]
    assert page_records.decisions([one], 10.0) == []


def test_what_says_nothing_is_left_out() -> None:
    quiet = record(
        1, 1.0, mode="applied", decision={"version": 1, "actions": [], "outlook": {}, "dropped": []}
    )
    standby = decided(2, 2.0, "standby", "b")
    led = record(3, 3.0) | {"event": "leads", "detail": "a"}
    shown = page_records.decisions([quiet, standby, led], 0.0)
    assert [(one["event"], one["detail"], one["changes"]) for one in shown] == [("leads", "a", [])]


def test_controllers_are_told_apart_and_the_leader_comes_first() -> None:
    records = [
        decided(1, 100.0, "standby", "second"),
        decided(2, 101.0, "applied", "first"),
        decided(3, 101.5, "advice", "third"),
        record(4, 102.0, event="stopped", controller="third"),
        decided(5, 60.0, "applied", "gone"),
    ]
    shown = page_records.controllers(records, 103.0)
    assert [(one["name"], one["kind"]) for one in shown] == [
        ("first", "leads"), ("second", "standby"), ("gone", "silent"), ("third", "ended"),
    ]  # fmt: skip
    assert shown[0]["policy"] == "hybrid"
    # Each says itself how often it is heard of.
    slow = decided(6, 60.0, "applied", "slow") | {"every_s": 60.0}
    assert page_records.controllers([slow], 103.0)[0]["kind"] == "leads"
    assert page_records.controllers([slow], 103.0 + page_records.FORGOTTEN_S) == []


def test_a_lease_that_changes_hands_shows_at_once() -> None:
    lost = record(2, 2.0, event="lost the lease", controller="a")
    assert page_records.controllers([decided(1, 1.0, "applied", "a"), lost], 3.0)[0]["kind"] == "standby"
    led = record(3, 2.5, event="leads", controller="a")
    assert page_records.controllers([lost, led], 3.0)[0]["kind"] == "leads"


def test_the_leader_s_outlook_counts_and_none_that_is_old() -> None:
    records = [decided(1, 10.0, "applied", "a", 8.0), decided(2, 11.0, "advice", "b", 99.0)]
    assert page_records.outlooks(records, 12.0) == {"f": Outlook(8.0, 12.0)}
    assert page_records.outlooks(records[1:], 12.0) == {"f": Outlook(99.0, 12.0)}
    assert page_records.outlooks(records, 60.0) == {}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["event", "mode", "controller", "policy", "every_s", "refused", "detail"])


@given(st.lists(st.dictionaries(names, anything), max_size=4), st.booleans())
def test_any_record_can_be_shown(contents: list[dict[str, Any]], with_decision: bool) -> None:
    decision = {"decision": json.loads(decision_to_json(DECISION))} if with_decision else {}
    records = [
        {**content, **decision, "number": k, "recorded_s": float(k)} for k, content in enumerate(contents)
    ]
    shown = page_records.controllers(records, 5.0), page_records.decisions(records, -1.0)
    json.dumps([*shown, len(page_records.outlooks(records, 5.0))], allow_nan=False)


# --- history ------------------------------------------------------------------------------------------------


def served() -> Any:
    """What of a function the history looks at."""
    return SimpleNamespace(counts=FunctionCounts(), spec=SimpleNamespace(slo_quantile=0.5))


def test_samples_are_differences_over_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(page_history.time, "monotonic", lambda: now.s)
    function = served()
    history = History({"f": function}, dict)
    function.counts.arrivals, function.counts.refused = 30, 2
    function.counts.complete(101.0, 0.25, 3, slo_s=0.2)
    now.s = 102.0
    history.take("f", function, Outlook(20.0, 40.0))
    now.s = 103.0
    history.take("f", function, None)
    assert history.since(0.0) == {
        "f": {
            "at_s": [102.0, 103.0],
            "rps": [15.0, 0.0],
            "arrivals": [30, 0],
            "violations": [5, 0],
            "latency_ms": [250.0, 250.0],
            "planned_rps": [20.0, None],
            "capacity_rps": [40.0, None],
        }
    }
    assert history.since(102.0)["f"]["at_s"] == [103.0]
    for _ in range(2 * page_history.KEPT):
        history.take("f", function, None)
    assert len(history.since(0.0)["f"]["at_s"]) == page_history.KEPT


def test_requests_have_their_turn_between_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred functions are sampled in pieces, so that no request waits for all of them."""
    monkeypatch.setattr(page_history, "SAMPLE_S", 0.05)
    functions = {str(k): served() for k in range(100)}

    async def run() -> int:
        history, longest, seen = History(functions, dict), 0, 0
        task = asyncio.get_running_loop().create_task(history.run())
        while len(history.since(0.0)["99"]["at_s"]) < 3:
            await asyncio.sleep(0)
            taken = sum(len(one["at_s"]) for one in history.since(0.0).values())
            longest, seen = max(longest, taken - seen), taken
        task.cancel()
        return longest

    assert asyncio.run(run()) <= 4
