"""From what a user asks for to a campaign that is ready to run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler.cluster import RayCluster
from profiler.derive import check_derivable
from profiler.device import Device, NetworkFile
from profiler.devices.opening import DeviceSettings, device_kind, open_device
from profiler.devices.replay import ReplayDevice
from profiler.growing import anchored_only
from profiler.measure import StopRule
from profiler.memory import too_large
from profiler.networks import Networks, named_networks, read_networks
from profiler.plan import NetworkPlan, QuotaMode, WhyNot, plan_network
from profiler.specification import Specification, specify
from rapp.errors import ConfigError
from rapp.evaluation.source import artifact_folder
from rapp.types import ResourceConfig, ResourceGrid


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Adaptive sampling: which predictor asks, and when it knows enough.

    Args:
        predictor: folder of its artifact.
        target_pct: stop at this predicted error, %.
        most_points: of a network.
    """

    predictor: Path
    target_pct: float
    most_points: int


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure on what, and how.

    Args:
        networks: ONNX files; for a replay names too, and none for all of its table.
        device: as `open_device` takes it.
        mode: None: `derive` on cuda, unless adaptive; `measure` elsewhere.
        adaptive: None: the whole grid.
        ray: address of a Ray cluster, over whose devices the work is spread; None: one device here.
    """

    networks: tuple[str, ...]
    device: str
    grid: ResourceGrid
    settings: DeviceSettings = field(default_factory=DeviceSettings)
    rule: StopRule = field(default_factory=StopRule)
    mode: QuotaMode | None = None
    seed: int = 0
    anchors: bool = True
    adaptive: Adaptive | None = None
    ray: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A campaign that can run.

    Args:
        device: one here, or the devices of a cluster.
        plans: whole grids, one for each network.
        specification: for the journal.
    """

    request: Request
    device: Device | RayCluster
    networks: Networks
    mode: QuotaMode
    plans: tuple[NetworkPlan, ...]
    specification: Specification

    @property
    def rows_of(self) -> tuple[NetworkPlan, ...]:
        """The plans of the table: for adaptive sampling the anchors alone are planned."""
        if self.request.adaptive is None:
            return self.plans
        return tuple(anchored_only(plan) for plan in self.plans)


@contextmanager
def prepared(request: Request) -> Iterator[Prepared]:
    """Open the device and plan; the device is closed on leaving.

    Raises:
        RappError: the device cannot be had, a network cannot be read, or options exclude each other.
    """
    mode, options = _mode(request), _options(request)
    # Files first: a device may be slow to open.
    networks = None if device_kind(request.device) == "replay" else _files(request)
    device = _opened(request)
    try:
        if mode == QuotaMode.DERIVE:
            check_derivable(device.info)
        if networks is None:
            networks = _of_table(request, device)
        why_not = obstacles(device, networks)
        plans = tuple(
            plan_network(
                network,
                request.grid,
                mode=mode,
                seed=request.seed,
                anchors=request.anchors,
                why_not=why_not,
            )
            for network in networks.files
        )
        specification = specify(
            networks.files,
            request.grid,
            device.info,
            request.rule,
            mode=mode,
            seed=request.seed,
            anchors=request.anchors,
            options=options,
        )
        yield Prepared(request, device, networks, mode, plans, specification)
    finally:
        device.close()


def _opened(request: Request) -> Device | RayCluster:
    if request.ray is None:
        return open_device(request.device, request.settings)
    if request.adaptive is not None:
        raise ConfigError("--adaptive chooses one point after another, on one device: leave --ray out")
    return RayCluster.connect(request.ray, request.device, request.settings)


def _of_table(request: Request, device: Device | RayCluster) -> Networks:
    """The networks of a replay; on a cluster the table is read here too."""
    replay = device if isinstance(device, ReplayDevice) else open_device(request.device, request.settings)
    assert isinstance(replay, ReplayDevice)
    return named_networks(request.networks, replay.networks, request.grid.batch)


def obstacles(device: Device | RayCluster, networks: Networks) -> WhyNot:
    """Why a configuration cannot be measured: its batch, its partition, or the memory it needs."""
    memory_mib = device.info.memory_mib
    partitions: dict[float, str | None] = {}

    def why_not(network: NetworkFile, config: ResourceConfig) -> str | None:
        if network.batches is not None and config.batch not in network.batches:
            served = ", ".join(map(str, network.batches))
            return f"the network runs with batch {served} alone"
        if config.sm_pct not in partitions:
            partitions[config.sm_pct] = device.why_not(config.sm_pct)
        if partitions[config.sm_pct] is not None:
            return partitions[config.sm_pct]
        need_mib = networks.need_mib.get(network.name, {}).get(config.batch)
        return None if need_mib is None else too_large(need_mib, memory_mib)

    return why_not


def _mode(request: Request) -> QuotaMode:
    if request.adaptive is not None and request.mode == QuotaMode.DERIVE:
        raise ConfigError(
            "--adaptive chooses quotas as it chooses partitions, so that --quota-mode derive has no place:"
            " leave one out"
        )
    if request.mode is not None:
        return request.mode
    on_gpu = device_kind(request.device) == "cuda"
    return QuotaMode.DERIVE if on_gpu and request.adaptive is None else QuotaMode.MEASURE


def _files(request: Request) -> Networks:
    if not request.networks:
        raise ConfigError("no network to profile: give ONNX files (a replay alone can do without)")
    return read_networks([Path(name) for name in request.networks], request.grid.batch)


def _options(request: Request) -> dict[str, Any]:
    """What changes the measurements and is said nowhere else."""
    options: dict[str, Any] = {}
    if request.settings.timeout_s is not None and device_kind(request.device) != "replay":
        options["timeout_s"] = request.settings.timeout_s
    if request.adaptive is not None:
        options["adaptive"] = {
            "predictor": _fingerprint(request.adaptive.predictor),
            "target_pct": request.adaptive.target_pct,
            "most_points": request.adaptive.most_points,
        }
    return options


def _fingerprint(artifact: Path) -> str:
    """SHA-256 of the card, which has those of the artifact's other files."""
    try:
        return hashlib.sha256((artifact_folder(artifact) / "card.json").read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"--predictor {artifact}: is no predictor artifact, its card.json cannot be read"
            f" ({error.strerror})"
        ) from error
