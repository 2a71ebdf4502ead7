"""What the router reports, and how each backend that reads it makes counts of its own from it.

The router's counts only go up. A reader subtracts those of its last look, so that any number can look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from scaler.core.observation import FunctionView, GpuView, InstanceView, Observation


@dataclass(frozen=True, slots=True)
class Marks:
    """How far a reader has read: answers of each function, and instances lost, since the router began."""

    completed: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """An instance; `batches` and `requests` of its view are those of its life.

    Args:
        started_s: when it was ordered, which tells two of one name apart.
        run_s, device_s: sums of the execution times and of the device times of its batches, s.
    """

    view: InstanceView
    started_s: float
    run_s: float
    device_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything at one look.

    Args:
        router: a name that no other router had. now_s: time.
        functions: counts since the router began; latencies of what was answered after the reader's marks.
        instances: those there are. lost: those that were lost after the marks.
        lost_total: how many were lost since the router began.
    """

    router: str
    now_s: float
    functions: Mapping[str, FunctionView]
    instances: tuple[InstanceReport, ...]
    lost: tuple[InstanceReport, ...]
    lost_total: int
    gpus: tuple[GpuView, ...]


class Reader:
    """Makes observations from reports; the first of a router has no counts."""

    def __init__(self) -> None:
        self._last: Report | None = None

    @property
    def marks(self) -> Marks | None:
        """To ask for the next report with; None: the first."""
        if self._last is None:
            return None
        completed = {name: view.completed for name, view in self._last.functions.items()}
        return Marks(completed, self._last.lost_total)

    def read(self, report: Report) -> Observation:
        """The observation of a report, with counts since the last one."""
        last = self._last if self._last is not None and self._last.router == report.router else None
        self._last = report
        before = {} if last is None else {_key(one): one for one in last.instances}
        nothing_before = last is None
        instances = []
        for one in (*report.instances, *report.lost):
            # One that was not there at the last look did everything since.
            start = one if nothing_before else before.get(_key(one))
            instances.append(_since(one, start))
        functions = {
            name: _function_since(view, None if last is None else last.functions.get(name))
            for name, view in report.functions.items()
        }
        return Observation(report.now_s, functions, tuple(instances), report.gpus)


def _key(one: InstanceReport) -> tuple[str, float]:
    return one.view.id, one.started_s


def _since(one: InstanceReport, start: InstanceReport | None) -> InstanceView:
    batches = one.view.batches - (0 if start is None else start.view.batches)
    requests = one.view.requests - (0 if start is None else start.view.requests)
    run_s = one.run_s - (0.0 if start is None else start.run_s)
    device_s = one.device_s - (0.0 if start is None else start.device_s)
    return replace(
        one.view,
        batches=batches,
        requests=requests,
        run_ms=1e3 * run_s / batches if batches else None,
        device_ms=1e3 * device_s / batches if batches else None,
    )


def _function_since(view: FunctionView, start: FunctionView | None) -> FunctionView:
    if start is None:
        return replace(view, arrivals=None, completed=0, late=0, refused=0, latency_ms=None)
    assert view.arrivals is not None
    return replace(
        view,
        arrivals=view.arrivals - (start.arrivals or 0),
        completed=view.completed - start.completed,
        late=view.late - start.late,
        refused=view.refused - start.refused,
    )
