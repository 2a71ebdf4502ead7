"""This machine as a device: its name, an anonymous identity, its memory."""

from __future__ import annotations

import hashlib
import hmac
import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rapp.runtime.cgroup import memory_limit_mib

# systemd's machine-id(5): the number itself is confidential, a keyed hash of it may be published.
_APPLICATION = b"rapp profiler"


def cpu_name(root: Path = Path("/")) -> str:
    """Model of the CPU, as the kernel calls it; the architecture where it has no name."""
    with suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine()


def machine_identity(root: Path = Path("/")) -> str | None:
    """An identity of this machine that outlives reboots and tells nothing of it; None: it has none."""
    for name in ("etc/machine-id", "var/lib/dbus/machine-id"):
        with suppress(OSError):
            number = (root / name).read_text().strip()
            if number:
                return "CPU-" + hmac.new(number.encode(), _APPLICATION, hashlib.sha256).hexdigest()[:16]
    return None


def available_memory_mib(root: Path = Path("/")) -> float | None:
    """Memory that a new process can use without swapping, MiB; None: unknown."""
    available, limit = _kib(root / "proc/meminfo", "MemAvailable"), memory_limit_mib(root)
    known = [mib for mib in (available and available / 1024, limit) if mib is not None]
    return min(known, default=None)


def peak_memory_mib(root: Path = Path("/")) -> float | None:
    """Most memory that this process has had resident, MiB; None: unknown."""
    peak = _kib(root / "proc/self/status", "VmHWM")
    return None if peak is None else peak / 1024


def busy_and_stolen_ticks(cores: Sequence[int], root: Path = Path("/")) -> tuple[int, int] | None:
    """Ticks that these cores have worked for anyone, and that the hypervisor kept from them; None: unknown.

    The columns are those of proc(5), /proc/stat: user nice system idle iowait irq softirq steal.
    """
    busy = stolen = 0
    wanted = {f"cpu{core}" for core in cores}
    with suppress(OSError, ValueError):
        for line in (root / "proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if name in wanted:
                user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
                busy += user + nice + system + irq + softirq
                stolen += steal
                wanted.discard(name)
    return None if wanted else (busy, stolen)


def _kib(file: Path, name: str) -> int | None:
    """A figure in kB from a file of lines `name:   figure kB`, as proc(5) has them; None: it is not there."""
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return None
