"""`/metrics` for Prometheus, made from the counts when it is asked for: requests pay nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scaler.core.observation import Phase
from scaler.serving.counts import BUCKETS_S, LatencyHistogram
from scaler.serving.fleet import Fleet
from scaler.serving.instance import Instance

_FUNCTION, _INSTANCE = ["function"], ["function", "instance"]

_Value = Callable[[Instance], float]
_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    ("quota_percent", "Time quota.", lambda one: one.config.quota_pct),
    ("sm_percent", "SM partition.", lambda one: one.config.sm_pct),
    ("batch_limit", "Requests executed together at most.", lambda one: one.config.batch),
    ("ready", "Whether it serves.", lambda one: one.phase is Phase.READY),
    ("in_flight", "Requests in its batch.", lambda one: len(one.carried)),
)
_COUNTERS: tuple[tuple[str, str, _Value], ...] = (
    ("batches", "Batches executed.", lambda one: one.counts.batches),
    ("requests", "Requests in them.", lambda one: one.counts.samples),
    ("run_seconds", "Time that batches ran.", lambda one: one.counts.run_s),
    ("device_seconds", "Device time charged.", lambda one: one.counts.device_s),
    ("held_seconds", "Time from begin to release of batches.", lambda one: one.counts.held_s),
    ("restarts", "Deaths of its worker.", lambda one: one.counts.restarts),
)


class FleetCollector(Collector):
    """A fleet as metrics; a request of batch n counts as n requests.

    Args:
        fleet: what is shown.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Any]:
        """All metrics."""
        yield from self._functions()
        yield from self._instances()
        gpu = self._fleet.device.view
        cores = GaugeMetricFamily("rapp_host_cores", "Cores that instances may use.", labels=["gpu"])
        cores.add_metric([gpu.id], gpu.host_cores)
        yield cores
        changes = CounterMetricFamily(
            "rapp_changes", "Changes made, by kind and reason.", labels=["kind", "reason"]
        )
        for (kind, reason), count in self._fleet.changes.items():
            changes.add_metric([kind, reason], count)
        yield changes

    def _functions(self) -> Iterator[Any]:
        functions = self._fleet.functions.items()
        counters = {
            "arrivals": "Requests that came.",
            "completed": "Requests that were answered.",
            "late": "Requests answered after the objective.",
            "refused": "Requests refused, as queue or memory was full.",
            "expired": "Requests whose deadline passed.",
            "failed": "Requests that failed in the network, with their workers, or as nobody waited.",
        }
        for name, text in counters.items():
            family = CounterMetricFamily(f"rapp_requests_{name}", text, labels=_FUNCTION)
            for function, served in functions:
                family.add_metric([function], getattr(served.counts, name))
            yield family
        queue = GaugeMetricFamily("rapp_queue_length", "Requests that wait.", labels=_FUNCTION)
        flight = GaugeMetricFamily("rapp_in_flight", "Requests in a batch.", labels=_FUNCTION)
        slo = GaugeMetricFamily("rapp_objective_seconds", "Objective of latency.", labels=_FUNCTION)
        for function, served in functions:
            queue.add_metric([function], served.waiting)
            flight.add_metric([function], served.in_flight)
            if served.slo_ms is not None:
                slo.add_metric([function], served.slo_ms / 1e3)
        yield from (queue, flight, slo)
        yield _histogram(
            "rapp_latency_seconds",
            "Latency of answers by function, queueing included.",
            _FUNCTION,
            (([function], served.counts.latency) for function, served in functions),
        )

    def _instances(self) -> Iterator[Any]:
        instances = list(self._fleet.instances.values())
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(f"rapp_instance_{name}", text, labels=_INSTANCE)
            for one in instances:
                gauge.add_metric([one.function, one.id], value(one))
            yield gauge
        for name, text, value in _COUNTERS:
            counter = CounterMetricFamily(f"rapp_instance_{name}", text, labels=_INSTANCE)
            for one in instances:
                counter.add_metric([one.function, one.id], value(one))
            yield counter
        cpu = CounterMetricFamily(
            "rapp_instance_cpu_seconds", "CPU time of its worker: host cores, as a rate.", labels=_INSTANCE
        )
        for one in instances:
            seconds = None if one.worker is None else one.worker.cpu_seconds()
            if seconds is not None:
                cpu.add_metric([one.function, one.id], seconds)
        yield cpu
        yield _histogram(
            "rapp_instance_latency_seconds",
            "Latency of answers by the instance that gave them, queueing included.",
            _INSTANCE,
            (([one.function, one.id], one.counts.latency) for one in instances),
        )


def _histogram(
    name: str, text: str, labels: list[str], rows: Iterable[tuple[list[str], LatencyHistogram]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in rows:
        total, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), histogram.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(values, buckets, histogram.sum_s)
    return family


def metrics_route(fleet: Fleet) -> Route:
    """The route for Starlette."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector(fleet))
    # CPU and memory of the gateway itself.
    ProcessCollector(registry=registry)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return Route("/metrics", metrics)
