"""What became of each request of a load: arrays with one element a request, and their CSV."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rapp.fileio import atomic_path
from rapp.types import FloatArray

UNFINISHED: Final = 0
"""Not answered when the load was stopped; nothing is known of it."""

TIMEOUT: Final = -1
"""No answer within the time allowed, counted from the intended send time."""

NO_CONNECTION: Final = -2
"""The server took no connection for it."""

BROKEN: Final = -3
"""The connection ended before the answer was whole."""

MALFORMED: Final = -4
"""What came back is no HTTP."""

NAMES: Final = {
    UNFINISHED: "unfinished",
    TIMEOUT: "timeout",
    NO_CONNECTION: "no connection",
    BROKEN: "connection broken",
    MALFORMED: "malformed answer",
}


def status_name(status: int) -> str:
    """`timeout` and the like; the number itself for a status of HTTP."""
    return NAMES.get(status) or str(status)


class Recorder:
    """Collects what becomes of requests while they run.

    Args:
        intended_s: when each is to be sent, s from the start, ascending.
    """

    def __init__(self, intended_s: FloatArray) -> None:
        # Arrays of the standard library: a single element is written three times as fast as in numpy.
        nothing = np.full(len(intended_s), np.nan)
        self.intended_s = array("d", intended_s.tobytes())
        self.sent_s = array("d", nothing.tobytes())
        self.latency_ms = array("d", nothing.tobytes())
        self.status = array("h", bytes(2 * len(intended_s)))
        self.ended = 0
        self.answered = 0
        self.refused = 0

    def sent(self, request: int, now_s: float) -> None:
        """The first byte goes out."""
        self.sent_s[request] = now_s

    def end(self, request: int, status: int, now_s: float) -> None:
        """It is over: an HTTP status, or one of this module."""
        self.status[request] = status
        self.latency_ms[request] = 1e3 * (now_s - self.intended_s[request])
        self.ended += 1
        if 200 <= status < 300:
            self.answered += 1
        elif status == 429:
            self.refused += 1


@dataclass(frozen=True, slots=True, eq=False)
class LoadRecords:
    """One element a request, in the order of the intended times.

    Args:
        functions: names. function: (N,) index of each request's.
        intended_s: (N,) when it was to be sent, s from the start.
        sent_s: (N,) when it was; NaN: never.
        latency_ms: (N,) from the intended time to the whole answer, or to what ended it; NaN: unfinished.
        status: (N,) of HTTP, or one of `NAMES`.
    """

    functions: tuple[str, ...]
    function: NDArray[np.int64]
    intended_s: FloatArray
    sent_s: FloatArray
    latency_ms: FloatArray
    status: NDArray[np.int16]

    @classmethod
    def of(
        cls, recorder: Recorder, functions: tuple[str, ...], function: NDArray[np.int64], count: int
    ) -> LoadRecords:
        """The first `count` requests of a recorder."""
        return cls(
            functions,
            function[:count],
            np.array(recorder.intended_s[:count]),
            np.array(recorder.sent_s[:count]),
            np.array(recorder.latency_ms[:count]),
            np.array(recorder.status[:count], np.int16),
        )

    def __len__(self) -> int:
        return len(self.intended_s)

    def of_function(self, name: str) -> LoadRecords:
        """Those of one function."""
        chosen = self.function == self.functions.index(name)
        return LoadRecords(
            self.functions,
            self.function[chosen],
            self.intended_s[chosen],
            self.sent_s[chosen],
            self.latency_ms[chosen],
            self.status[chosen],
        )

    @property
    def answered(self) -> NDArray[np.bool_]:
        """(N,) those with an answer of status 2xx."""
        return np.asarray((self.status >= 200) & (self.status < 300))

    def write_csv(self, path: str | Path) -> None:
        """One row a request; the file appears whole or not at all. What is not known is empty.

        Raises:
            RappError: it cannot be written.
        """
        names = {int(status): status_name(int(status)) for status in np.unique(self.status)}
        with atomic_path(path) as part, part.open("w", encoding="utf-8") as file:
            file.write("t_intended_s,t_sent_s,latency_ms,status,function\n")
            rows = zip(
                self.intended_s.tolist(), self.sent_s.tolist(), self.latency_ms.tolist(),
                self.status.tolist(), self.function.tolist(), strict=True,
            )  # fmt: skip
            for intended, sent, latency, status, function in rows:
                sent_text = "" if sent != sent else f"{sent:.6f}"
                latency_text = "" if latency != latency else f"{latency:.3f}"
                row = (f"{intended:.6f}", sent_text, latency_text, names[status], self.functions[function])
                file.write(",".join(row) + "\n")
