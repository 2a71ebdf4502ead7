"""The copies of objects: watches that end, are too old, or go silent; and writes ahead of their events."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes")
sys.path.insert(0, str(Path(__file__).parent))

from fake_kubernetes import FakeKubernetes
from fake_kubernetes_http import served
from kubernetes import client

from scaler.backends import kubernetes_mirror
from scaler.backends.kubernetes_api import ApiError, KubernetesApi
from scaler.backends.kubernetes_mirror import Mirror
from scaler.errors import BackendError

LABELS = {"of": "test"}


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or LABELS}, "status": {"phase": "Pending"}}


@pytest.fixture
def state() -> FakeKubernetes:
    return FakeKubernetes(ready_s=1000.0)


@pytest.fixture
def mirror(state: FakeKubernetes) -> Iterator[Mirror]:
    with served(state) as url:
        api = KubernetesApi(client.ApiClient(client.Configuration(host=url)), "default")
        made = Mirror(
            "pods",
            lambda: api.list_pods("of=test"),
            lambda version, s, stopped: api.watch_pods("of=test", version, s, stopped),
            watch_s=1,
        )
        yield made
        made.close()


def names(mirror: Mirror) -> list[str]:
    return sorted(one["metadata"]["name"] for one in mirror.objects())


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def watches(state: FakeKubernetes) -> list[str]:
    return [path for method, path in state.requests if "watch=" in path]


def lists(state: FakeKubernetes) -> int:
    return sum(method == "GET" and "watch=" not in path for method, path in state.requests)


def test_what_is_there_comes_goes_and_changes_is_seen(state: FakeKubernetes, mirror: Mirror) -> None:
    state.put("pods", pod("a"))
    state.put("pods", pod("stranger", of="other"))
    assert names(mirror) == ["a"]
    state.put("pods", pod("b"))
    until(lambda: names(mirror) == ["a", "b"])
    state.put("pods", pod("b", of="test", new="1"))
    until(lambda: any(one["metadata"]["labels"].get("new") for one in mirror.objects()))
    state.remove("pods", "a")
    until(lambda: names(mirror) == ["b"])
    assert lists(state) == 1


def test_a_list_of_many_pages_is_one_list(
    state: FakeKubernetes, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaler.backends.kubernetes_api.PAGE", 10)
    for number in range(35):
        state.put("pods", pod(f"p{number:02}"))
    assert len(names(mirror)) == 35
    assert lists(state) == 4


def test_a_stream_that_ends_is_resumed_from_where_it_was(state: FakeKubernetes, mirror: Mirror) -> None:
    state.put("pods", pod("a"))
    assert names(mirror) == ["a"]
    until(lambda: len(watches(state)) >= 3)
    state.put("pods", pod("b"))
    until(lambda: names(mirror) == ["a", "b"])
    assert lists(state) == 1
    # A bookmark moves the version on without an event.
    for _ in range(5):
        state.put("pods", pod("stranger", of="other"))
    until(lambda: f"resourceVersion={state.version}&" in watches(state)[-1] + "&")


def test_a_version_that_is_too_old_means_to_list_anew(state: FakeKubernetes, mirror: Mirror) -> None:
    state.put("pods", pod("a"))
    assert names(mirror) == ["a"]
    with state.lock:
        # Gone and come while nobody could have told.
        state.objects["pods"].pop("a")
        state.objects["pods"]["b"] = state.put("pods", pod("b"))
        state.events["pods"].clear()
        state.forget()
    until(lambda: names(mirror) == ["b"])
    assert lists(state) >= 2
    before = lists(state)
    until(lambda: len(watches(state)) >= 4)
    assert lists(state) == before


def test_a_write_is_seen_at_once_and_an_older_event_does_not_undo_it(
    state: FakeKubernetes, mirror: Mirror
) -> None:
    state.put("pods", pod("a"))
    assert names(mirror) == ["a"]
    ahead = pod("a", of="test", written="1")
    ahead["metadata"] |= {
        "resourceVersion": str(state.version + 50),
        "uid": state.pod("a")["metadata"]["uid"],
    }
    mirror.written(ahead)
    state.put("pods", state.pod("a"))
    state.put("pods", pod("z"))
    until(lambda: "z" in names(mirror))
    assert mirror.objects()[0]["metadata"]["labels"].get("written") == "1"


def test_what_is_gone_does_not_come_back_by_a_late_answer(state: FakeKubernetes, mirror: Mirror) -> None:
    late = state.put("pods", pod("a"))
    assert names(mirror) == ["a"]
    state.remove("pods", "a")
    until(lambda: names(mirror) == [])
    mirror.written(late)
    assert names(mirror) == []
    state.put("pods", pod("a"))
    until(lambda: names(mirror) == ["a"])


def test_a_server_that_went_away_is_told_soon(state: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_mirror, "ERROR_S", 0.3)
    with served(state) as url:
        api = KubernetesApi(client.ApiClient(client.Configuration(host=url)), "default")
        mirror = Mirror(
            "pods",
            lambda: api.list_pods("of=test"),
            lambda version, s, stopped: api.watch_pods("of=test", version, s, stopped),
            watch_s=1,
        )
        assert names(mirror) == []

    def is_told() -> bool:
        try:
            mirror.objects()
        except BackendError as error:
            return "pods were not seen for" in str(error)
        return False

    until(is_told)
    mirror.close()


def test_an_error_of_this_program_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_mirror, "ERROR_S", 0.0)

    def watching(*_: object) -> Iterator[Any]:
        yield {"type": "ADDED", "object": {}}

    mirror = Mirror("pods", lambda: ([], "1"), watching)
    mirror._list()
    mirror._follow()
    mirror._thread = threading.current_thread()
    with pytest.raises(BackendError, match="KeyError"):
        mirror.objects()


def test_a_first_list_that_fails_is_told_and_tried_again() -> None:
    answers: list[Any] = [ApiError(0, "nobody there"), ([pod("a")], "1")]
    ended = threading.Event()

    def listing() -> Any:
        one = answers.pop(0)
        if isinstance(one, ApiError):
            raise one
        return one

    def watching(*_: object) -> Iterator[Any]:
        ended.wait(5)
        yield from ()

    mirror = Mirror("pods", listing, watching)
    with pytest.raises(BackendError, match="nobody there"):
        mirror.objects()
    assert names(mirror) == ["a"]
    mirror._end.set()
    ended.set()
    mirror.close()
