"""What a controller does as metrics for Prometheus."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from rapp.errors import ConfigError, MissingExtraError
from scaler.core.observation import Phase
from scaler.live.tick import Happening, Tick

try:
    from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server
    from prometheus_client import Counter as Count
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "serve") from error

OUTLOOK = {
    "rate_rps": "Arrivals a second over the last tick",
    "forecast_rps": "Expected rate at the horizon of a cold start",
    "upper_rps": "Upper quantile of that rate, which is planned for",
    "capacity_rps": "Rate within the objective of what is ready and starting, after the decision",
    "unmet_rps": "Part of the planned rate for which there is no room",
    "correction": "Factor on predicted execution times, learned from observed ones",
}
"""Fields of `FunctionOutlook` that become gauges."""


class Metrics:
    """Keeps the metrics up to date, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._shown: dict[Gauge, set[tuple[str, ...]]] = {}
        kept: dict[str, Any] = {"namespace": "rapp", "subsystem": "autoscale", "registry": self.registry}
        self._ticks = Count("ticks", "Decisions by what became of them", ["mode"], **kept)
        self._changes = Count("changes", "Changes decided", ["function", "kind", "reason", "mode"], **kept)
        self._refused = Count("refused_changes", "Changes that the backend could not make", **kept)
        self._dropped = Count("dropped_changes", "Changes of the policy that cannot be made", **kept)
        self._happenings = Count("happenings", "What happened besides decisions", ["what"], **kept)
        self._leads = Gauge("leads", "Whether this controller may make changes", **kept)
        self._seen = Gauge("last_observation_timestamp_seconds", "Unix time of the last observation", **kept)
        self._took = Histogram(
            "tick_seconds", "From the observation's begin to the end of a tick",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30), **kept,
        )  # fmt: skip
        self._instances = Gauge("instances", "Instances observed", ["function", "phase"], **kept)
        self._share = Gauge("gpu_share", "SM share x quota of live instances, GPUs", ["function"], **kept)
        self._gpus = Gauge("gpus", "GPUs observed", **kept)
        self._outlook = {
            name: Gauge(name, text, ["function"], **kept) for name, text in OUTLOOK.items()
        }  # fmt: skip

    def serve(self, port: int, host: str = "127.0.0.1") -> int:
        """Answer Prometheus at `/metrics` from a thread of its own.

        Args:
            port: 0: any that is free.

        Returns:
            The port.

        Raises:
            ConfigError: the port is taken, or the address is not of this machine.
        """
        try:
            server, _ = start_http_server(port, host, self.registry)
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "it is taken: choose another" if taken else str(error)
            raise ConfigError(f"--metrics-port {port} at {host}: {why}") from error
        return int(server.server_port)

    def on_tick(self, tick: Tick) -> None:
        """As `Reporter.on_tick`."""
        decision, seen = tick.decision, tick.seen
        self._ticks.labels(tick.mode.value).inc()
        for action in decision.actions:
            self._changes.labels(action.function, action.kind, action.reason.value, tick.mode.value).inc()
        self._refused.inc(len(tick.refused))
        self._dropped.inc(len(decision.dropped))
        self._took.observe(tick.took_s)
        self._seen.set_to_current_time()
        self._gpus.set(len(seen.gpus))
        phases: dict[tuple[str, ...], float] = {}
        shares: dict[tuple[str, ...], float] = {}
        for one in seen.instances:
            at, of = (one.function, one.phase.value), (one.function,)
            phases[at] = phases.get(at, 0.0) + 1.0
            shares[of] = shares.get(of, 0.0) + (0.0 if one.phase == Phase.LOST else one.config.gpu_share)
        self._show(self._instances, phases)
        self._show(self._share, shares)
        for name, gauge in self._outlook.items():
            values = {(function,): getattr(outlook, name) for function, outlook in decision.outlook.items()}
            # What is not known is absent, not 0.
            self._show(gauge, {labels: value for labels, value in values.items() if value is not None})

    def _show(self, gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
        """Have a gauge show these values by label, and no others; at no moment it lacks one of them."""
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        for labels in self._shown.get(gauge, set()) - values.keys():
            gauge.remove(*labels)
        self._shown[gauge] = set(values)

    def on_happening(self, what: Happening, detail: str, number: int = 1) -> None:
        """As `Reporter.on_happening`."""
        self._happenings.labels(what.value).inc(number)
        if what == Happening.LEADS:
            self._leads.set(1)
        elif what in (Happening.LOST_LEASE, Happening.STOPPED):
            self._leads.set(0)
