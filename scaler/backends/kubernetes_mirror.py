"""`Mirror`: a copy of some of the cluster's objects, kept up to date by a watch.

As the API documentation asks of clients ("Efficient detection of changes"): list once, watch from the list's
version, resume from the last version seen when the stream ends, and list anew when that version is too old
(410 Gone).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from scaler.backends.kubernetes_api import GONE, ApiError, Json, Stopped
from scaler.errors import BackendError
from scaler.live.clock import Backoff

WATCH_S = 20
"""The server ends each stream after so long, so that one that is silently dead is found out."""

STALE_S = WATCH_S + 20.0
"""A copy that no list, event or end of a stream confirmed for so long is none."""

ERROR_S = 5.0
"""Nor is one this old while the server cannot be reached."""

SHORT_WATCH_S = 1.0
"""A stream without an event is followed by the next one no sooner than so long after it began."""

MOST_GONE = 4096
"""Deleted objects remembered; a write that is ahead of its deletion is so by milliseconds."""

_log = logging.getLogger(__name__)


class Mirror:
    """Objects of one kind, by name.

    Args:
        what: the kind, for messages.
        listing: all objects and the version to watch from.
        watching: changes after a version.
        watch_s: see `WATCH_S`. stale_s: see `STALE_S`.
    """

    def __init__(
        self,
        what: str,
        listing: Callable[[], tuple[list[Json], str]],
        watching: Callable[[str, int, Stopped], Iterator[Json]],
        watch_s: int = WATCH_S,
        stale_s: float = STALE_S,
    ) -> None:
        self._what, self._listing, self._watching = what, listing, watching
        self._stale_s, self._watch_s = stale_s, watch_s
        self._lock = threading.Lock()
        self._objects: dict[str, Json] = {}
        self._gone: dict[str, None] = {}
        self._version: str | None = None
        self._confirmed_s = -float("inf")
        self._error: str | None = None
        self._end, self._stopped = threading.Event(), Stopped()
        self._thread: threading.Thread | None = None

    def objects(self) -> list[Json]:
        """The objects as last seen; they are not to be changed.

        Raises:
            BackendError: they could not be seen, or not for so long that they may be others by now.
        """
        if self._thread is None:
            # The first list is made here, so that whatever is wrong with it is told at once.
            self._list()
            self._thread = threading.Thread(target=self._follow, name=f"mirror of {self._what}", daemon=True)
            self._thread.start()
        with self._lock:
            age_s = time.monotonic() - self._confirmed_s
            if age_s > (self._stale_s if self._error is None else ERROR_S):
                why = self._error or "the watch is silent"
                raise BackendError(f"{self._what} were not seen for {age_s:.0f} s: {why}")
            return list(self._objects.values())

    def written(self, one: Json) -> None:
        """Note what a write answered, which the watch shows only a moment later."""
        with self._lock:
            self._put(one)

    def removed(self, one: Json) -> None:
        """Note that an object is gone."""
        with self._lock:
            self._take(one)

    def close(self) -> None:
        """Stop watching."""
        self._end.set()
        self._stopped.stop()
        if self._thread is not None:
            self._thread.join(1.0)

    def _follow(self) -> None:
        try:
            self._go_on()
        except Exception as error:
            # Nobody waits for this thread: without a word the copy would just become old.
            _log.exception("the watch of %s ended by an error of this program", self._what)
            self._error = f"{type(error).__name__}: {error}"

    def _go_on(self) -> None:
        backoff = Backoff(0.5, 10.0)
        while not self._end.is_set():
            try:
                if self._version is None:
                    self._list()
                begin_s = time.monotonic()
                had_events = self._watch_once(str(self._version))
                backoff.worked()
                self._error = None
                if not had_events:
                    # A server that ends each stream at once is not asked without a pause.
                    self._end.wait(max(begin_s + SHORT_WATCH_S - time.monotonic(), 0.0))
            except ApiError as error:
                if self._end.is_set():
                    return
                if error.status == GONE:
                    _log.info("the watch of %s is too old: they are listed anew", self._what)
                    self._version = None
                    if not backoff.failures:
                        # Once at once; a server that says so over and over is given time.
                        backoff.failures = 1
                        continue
                self._error = str(error)
                self._end.wait(backoff.failed(time.monotonic()))

    def _list(self) -> None:
        objects, version = self._listing()
        listed = {one["metadata"]["name"]: one for one in objects}
        with self._lock:
            # What was written after the list was made is not in it.
            newer = {name: one for name, one in self._objects.items() if _version_of(one) > _number(version)}
            self._objects = listed
            for one in newer.values():
                self._put(one)
            self._version, self._confirmed_s, self._error = version, time.monotonic(), None

    def _watch_once(self, version: str) -> bool:
        """Follow one stream to its end; whether it told anything."""
        had_events = False
        for event in self._watching(version, self._watch_s, self._stopped):
            if self._end.is_set():
                return True
            one: Any = event["object"]
            with self._lock:
                if event["type"] == "DELETED":
                    self._take(one)
                elif event["type"] != "BOOKMARK":
                    self._put(one)
                had_events = had_events or event["type"] != "BOOKMARK"
                self._version = str(one["metadata"]["resourceVersion"])
                self._confirmed_s = time.monotonic()
        # A stream that ended as agreed has told all there was.
        with self._lock:
            self._confirmed_s = time.monotonic()
        return had_events

    def _put(self, one: Json) -> None:
        """Take an object unless it is gone or a newer one is known: a write may be ahead of the watch."""
        name = one["metadata"]["name"]
        known = self._objects.get(name)
        if one["metadata"]["uid"] in self._gone:
            return
        if known is None or _version_of(one) >= _version_of(known):
            self._objects[name] = one

    def _take(self, one: Json) -> None:
        name, uid = one["metadata"]["name"], one["metadata"]["uid"]
        self._gone[uid] = None
        if len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]
        known = self._objects.get(name)
        if known is not None and known["metadata"]["uid"] == uid:
            del self._objects[name]


def _version_of(one: Json) -> int:
    return _number(str(one["metadata"].get("resourceVersion")))


def _number(version: str) -> int:
    """Versions of one kind are numbers that grow (KEP-5504); where they are not, what came last is taken."""
    return int(version) if version.isdecimal() else 0
