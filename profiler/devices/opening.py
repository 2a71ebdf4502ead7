"""Devices by the name that a user gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from profiler.device import Device
from rapp.errors import ConfigError

KINDS = "cuda, cuda:INDEX or cuda:UUID; cpu; replay:TABLE"


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What can be set for devices that measure; a replay has that of its table.

    Args:
        idle_ms: pause between one batch and the next, ms; None: 0.
        window_ms: window of the time quota, ms; None: 40.
        timeout_s: longest time of one call to a worker, s; None: 300.
    """

    idle_ms: float | None = None
    window_ms: float | None = None
    timeout_s: float | None = None

    @property
    def given(self) -> _Arguments:
        """Arguments of a device; what is None keeps its default."""
        given: _Arguments = {}
        if self.idle_ms is not None:
            given["idle_ms"] = self.idle_ms
        if self.window_ms is not None:
            given["window_ms"] = self.window_ms
        if self.timeout_s is not None:
            given["call_timeout_s"] = self.timeout_s
        return given


class _Arguments(TypedDict, total=False):
    idle_ms: float
    window_ms: float
    call_timeout_s: float


def device_kind(name: str) -> str:
    """`cuda`, `cpu` or `replay`.

    Raises:
        ConfigError: a device of no kind.
    """
    kind, _, rest = name.partition(":")
    if name in ("cpu", "cuda") or (kind in ("cuda", "replay") and rest):
        return kind
    raise ConfigError(f"--device {name}: there is no such device; write {KINDS}")


def open_device(name: str, settings: DeviceSettings | None = None) -> Device:
    """The device called `name`: `cuda:0`, `cpu`, `replay:profiles.parquet?seed=1`; the caller closes it.

    Raises:
        ConfigError: no such kind of device, or a setting that it cannot take.
        RappError: the device cannot be had; the message names the next action.
    """
    settings = settings or DeviceSettings()
    kind, rest = device_kind(name), name.partition(":")[2]
    if kind == "replay":
        return _replay(rest, settings)
    if kind == "cpu":
        from profiler.devices.cpu import CpuDevice

        return CpuDevice(**settings.given)
    from profiler.devices.cuda import CudaDevice

    return CudaDevice(rest or "0", **settings.given)


def _replay(rest: str, settings: DeviceSettings) -> Device:
    from profiler.devices.replay import ReplayDevice, ReplayOptions

    path, _, options = rest.partition("?")
    device = ReplayDevice.read(path, ReplayOptions.parse(options))
    for option, wanted, known in (
        ("--idle-ms", settings.idle_ms, device.info.idle_ms),
        ("--window-ms", settings.window_ms, device.info.window_ms),
    ):
        if wanted is not None and wanted != known:
            told = "does not tell one" if known is None else f"was measured with {known:g}"
            raise ConfigError(f"{option} {wanted:g}: {path} {told}, and a replay cannot change it")
    return device
