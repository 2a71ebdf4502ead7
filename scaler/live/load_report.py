"""`LoadReport`: what a load found out, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rapp.types import FloatArray
from scaler.live.load_records import UNFINISHED, LoadRecords, status_name

LATE_SENDER_MS = 1.0
"""p99 of the send lag above which the figures are partly the generator's own."""


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """Figures of one function, or of all together.

    Latencies are those of answers with status 2xx, from the intended send time. A violation is a request
    answered late or not at all; without an objective, one not answered. What was unfinished when the load
    was stopped counts as neither.

    Args:
        requests: sent or to be sent in the time that passed. unfinished: of those, not over at the end.
        answered: with status 2xx. refused: with 429. errors: count by kind, 429 apart.
        violations: over `requests - unfinished`.
        slo_ms: the objective, ms; None: none.
        intended_rps: requests over the time that passed. sent_rps, answered_rps: over that time or up to the
            last of them, whichever is longer: below the intended rate the other side, or the generator, did
            not keep up.
    """

    requests: int
    unfinished: int
    answered: int
    refused: int
    errors: Mapping[str, int]
    violations: int
    slo_ms: float | None
    intended_rps: float
    sent_rps: float
    answered_rps: float
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @property
    def violation_share(self) -> float:
        """Violations over the requests that ended, in [0, 1]."""
        return self.violations / max(self.requests - self.unfinished, 1)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The outcome of one load.

    Args:
        functions: figures by function. total: of all.
        lag_p50_ms, lag_p99_ms, lag_max_ms: how much later than intended requests were sent, ms; None: none.
        waited: requests that had to wait for a connection, since all allowed were busy.
        cpu_s: what the generator's thread used, s. wall_s: how long it ran, s.
        interrupted: it was stopped before its end.
        records: every request.
    """

    functions: Mapping[str, LoadFigures]
    total: LoadFigures
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    lag_max_ms: float | None
    waited: int
    cpu_s: float
    wall_s: float
    interrupted: bool
    records: LoadRecords

    @property
    def cpu_cores(self) -> float:
        """Cores that the generator kept busy, on average."""
        return self.cpu_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def warning(self) -> str | None:
        """What makes the figures doubtful; None: nothing."""
        if self.waited:
            return (
                f"{self.waited:,} requests waited for a free connection: the load was not open;"
                " raise --connections"
            )
        if self.lag_p99_ms is not None and self.lag_p99_ms > LATE_SENDER_MS:
            return (
                f"requests left {self.lag_p99_ms:.1f} ms late at p99: the generator lacks CPU, and latencies"
                " hold that time too"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """All but the single requests, for `json.dumps`."""
        plain: dict[str, Any] = {
            "version": 1,
            "total": asdict(self.total),
            "functions": {name: asdict(figures) for name, figures in self.functions.items()},
        }
        for name in ("lag_p50_ms", "lag_p99_ms", "lag_max_ms", "waited", "cpu_s", "wall_s", "interrupted"):
            plain[name] = getattr(self, name)
        return plain


def report_of(
    records: LoadRecords,
    slo_ms: Mapping[str, float],
    *,
    passed_s: float,
    waited: int,
    cpu_s: float,
    wall_s: float,
    interrupted: bool,
) -> LoadReport:
    """Figures from records.

    Args:
        slo_ms: objectives by function; a function may lack one.
        passed_s: intended time that passed, s: the trace's duration, less if it was stopped.
    """
    late = np.zeros(len(records), bool)
    for number, name in enumerate(records.functions):
        if name in slo_ms:
            late |= (records.function == number) & (records.latency_ms > slo_ms[name])
    figures = {}
    for name in records.functions:
        own = records.function == records.functions.index(name)
        figures[name] = _figures(records.of_function(name), late[own], slo_ms.get(name), passed_s)
    common = {slo_ms.get(name) for name in records.functions}
    total = _figures(records, late, common.pop() if len(common) == 1 else None, passed_s)
    sent = ~np.isnan(records.sent_s)
    lag_ms = 1e3 * (records.sent_s[sent] - records.intended_s[sent])
    return LoadReport(
        figures, total, _at(lag_ms, 50), _at(lag_ms, 99), _at(lag_ms, 100),
        waited, cpu_s, wall_s, interrupted, records,
    )  # fmt: skip


def _figures(records: LoadRecords, late: Any, slo_ms: float | None, passed_s: float) -> LoadFigures:
    answered = records.answered
    over = records.status != UNFINISHED
    latency_ms = records.latency_ms[answered]
    kinds, counts = np.unique(records.status[over & ~answered & (records.status != 429)], return_counts=True)
    ended_s = records.intended_s + records.latency_ms / 1e3
    return LoadFigures(
        requests=len(records),
        unfinished=int((~over).sum()),
        answered=int(answered.sum()),
        refused=int((records.status == 429).sum()),
        errors={status_name(int(kind)): int(count) for kind, count in zip(kinds, counts, strict=True)},
        violations=int((over & (~answered | late)).sum()),
        slo_ms=slo_ms,
        intended_rps=len(records) / passed_s if passed_s > 0 else 0.0,
        sent_rps=_rate(records.sent_s[~np.isnan(records.sent_s)], passed_s),
        answered_rps=_rate(ended_s[answered], passed_s),
        mean_ms=float(latency_ms.mean()) if len(latency_ms) else None,
        p50_ms=_at(latency_ms, 50),
        p95_ms=_at(latency_ms, 95),
        p99_ms=_at(latency_ms, 99),
        max_ms=_at(latency_ms, 100),
    )


def _rate(at_s: FloatArray, passed_s: float) -> float:
    span_s = max(float(at_s.max()) if len(at_s) else 0.0, passed_s)
    return len(at_s) / span_s if span_s > 0 else 0.0


def _at(values: FloatArray, percent: float) -> float | None:
    """Percentile; the higher of two neighbours, so that p99 of few requests is not made up."""
    return float(np.percentile(values, percent, method="higher")) if len(values) else None
