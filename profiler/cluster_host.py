"""The process on a node of a Ray cluster that owns one device and measures the units it is sent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

from profiler.bench import run_unit
from profiler.device import Device, DeviceInfo, NetworkFile
from profiler.devices.opening import DeviceSettings, device_kind, open_device
from profiler.measure import StopRule
from profiler.outcome import Outcome
from profiler.outputs import References
from profiler.plan import WorkUnit


@dataclass(frozen=True, slots=True)
class Shipment:
    """A network on its way to another node.

    Args:
        network: as the driver has it. batches: those of its plan, for the outputs to compare with.
        files: content by name: the ONNX file itself first, then its external data; none for a replay.
    """

    network: NetworkFile
    batches: tuple[int, ...]
    files: Mapping[str, bytes]

    @classmethod
    def pack(cls, network: NetworkFile, batches: tuple[int, ...]) -> Shipment:
        """Read a network's files.

        Raises:
            GraphError: they cannot be read, or external data lie outside the file's folder.
        """
        if network.path is None:
            return cls(network, batches, {})
        from rapp.graph.loading import external_files

        folder = network.path.parent
        names = [network.path.name, *external_files(network.path)]
        return cls(network, batches, {name: (folder / name).read_bytes() for name in names})

    def unpack(self, folder: Path) -> NetworkFile:
        """Write the files into `folder`; the network as it is there."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        path = folder / next(iter(self.files)) if self.files else None
        return replace(self.network, path=path)


class Host:
    """Owns one device. Its methods are called by `profiler.cluster`, two at once at most: a unit, and `stop`.

    Args:
        device: as `open_device` takes it; `cuda` is the GPU that Ray gives to this process.
        settings: of the device.
    """

    def __init__(self, device: str, settings: DeviceSettings) -> None:
        self._stopped = Event()
        self._folder = tempfile.TemporaryDirectory(prefix="rapp-profile-")
        self._networks: dict[str, tuple[NetworkFile, References]] = {}
        self._name, self._settings = device, settings
        self._device: Device | None = None

    def open(self) -> DeviceInfo:
        """Open the device, before anything else is asked.

        Raises:
            RappError: it cannot be had.
        """
        # Not when the process starts: what goes wrong there reaches the driver as text alone.
        self._device = open_device(_assigned(self._name), self._settings)
        return self._device.info

    @property
    def device(self) -> Device:
        """The device, which is open."""
        assert self._device is not None, "open() comes first"
        return self._device

    def why_not(self, sm_pct: float) -> str | None:
        """Why its device has no such SM partition; None if it has."""
        return self.device.why_not(sm_pct)

    def stop(self) -> None:
        """Leave the points that have not begun."""
        self._stopped.set()

    def run(
        self, unit: WorkUnit, shipment: Shipment, rule: StopRule, ended: tuple[Outcome, ...]
    ) -> Iterator[Outcome]:
        """Measure a unit; each outcome leaves as soon as there is one.

        Raises:
            Exception: whatever a bug raises; expected ends are outcomes.
        """
        network, references = self._unpacked(shipment)
        uuid = self.device.info.device_uuid
        found: SimpleQueue[Outcome | BaseException | None] = SimpleQueue()

        def work() -> None:
            try:
                run_unit(
                    self.device,
                    replace(unit, network=network),
                    rule,
                    references=references,
                    report=found.put,
                    ended=ended,
                    stopped=self._stopped.is_set,
                )
                found.put(None)
            except BaseException as error:
                found.put(error)

        # run_unit pushes and a generator is pulled from: the thread between them is the only way round.
        Thread(target=work, daemon=True).start()
        while (one := found.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield replace(one, device_uuid=uuid)

    def close(self) -> None:
        """Give the device back."""
        if self._device is not None:
            self._device.close()
        self._folder.cleanup()

    def _unpacked(self, shipment: Shipment) -> tuple[NetworkFile, References]:
        name = shipment.network.name
        if name not in self._networks:
            folder = Path(self._folder.name) / str(len(self._networks))
            folder.mkdir()
            network = shipment.unpack(folder)
            self._networks[name] = network, References(network, shipment.batches)
        return self._networks[name]


def _assigned(device: str) -> str:
    """The device by a name that is right whatever Ray does to CUDA_VISIBLE_DEVICES."""
    if device_kind(device) != "cuda":
        return device
    import ray

    (gpu,) = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    # The profiler counts GPUs as NVML does and hands UUIDs to its workers: Ray's mask would renumber them.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return f"cuda:{gpu}"
