"""The control block of a time quota, byte by byte, and what can be wrong with one.

The C library that gates launches shares this layout: a change here needs a new `VERSION` there and here.
"""

from __future__ import annotations

import errno
import math
import struct
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from rapp.errors import ConfigError, DataError

MAGIC = int.from_bytes(b"RAPPQG01", "little")
VERSION = 1
SIZE_BYTES = 128
MILLION = 1_000_000

# Field -> (offset in bytes, struct code): Q u64, I u32, q i64, little-endian, each aligned to its own size.
# Bytes from 112 on are reserved, and zero.
FIELDS: dict[str, tuple[int, str]] = {
    "magic": (0, "Q"),
    "version": (8, "I"),
    "mode": (12, "I"),
    "quota_ppm": (16, "I"),
    "lead": (20, "I"),  # groups of launches in flight at most
    "window_ns": (24, "Q"),
    "group_ns": (32, "Q"),  # device time that one group of launches should have
    "lock_owner": (40, "I"),  # pid, 0 free; this, tokens_ns and refilled_ns belong to the C library alone
    "reserved": (44, "I"),
    "tokens_ns": (48, "q"),
    "refilled_ns": (56, "Q"),  # CLOCK_MONOTONIC, 0 never
    "launches": (64, "Q"),
    "groups": (72, "Q"),
    "used_ns": (80, "Q"),
    "waited_ns": (88, "Q"),
    "waits": (96, "Q"),
    "max_debt_ns": (104, "Q"),
}

# Far beyond any window that bounds a latency; window_ns times a million still fits 64 bits in the C library.
LONGEST_NS = 10_000 * MILLION


class QuotaMode(IntEnum):
    """What the quota limits; the value is that of the field `mode`."""

    OFF = 0
    GPU_TIME = 1


MODES = tuple(QuotaMode)


class BlockFault(StrEnum):
    """Why a file cannot be used as a control block. The value is what the message begins with."""

    MISSING = "no such file or folder"
    DENIED = "no permission"
    EXISTS = "exists already: open it, or remove it if nobody uses it"
    SHORT = "too short for a control block"
    FOREIGN = "not a control block"
    VERSION = "a control block of another version"
    VALUE = "holds a quota, window or mode that cannot be"
    SYSTEM = "cannot be used as a control block"


class QuotaBlockError(DataError):
    """A control block that cannot be created, opened or believed.

    Args:
        path: the file, or what stands for it.
        fault: which kind.
        detail: figures or the system's own words; "" if there are none.
    """

    def __init__(self, path: str | Path, fault: BlockFault, detail: str = "") -> None:
        self.fault, self.detail = fault, detail
        super().__init__(path, f"{fault.value}: {detail}" if detail else fault.value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.fault, self.detail)


def block_bytes(quota_pct: float, window_ms: float, mode: QuotaMode, lead: int, group_ms: float) -> bytearray:
    """A fresh block of `SIZE_BYTES`.

    Raises:
        ConfigError: an argument out of its range.
    """
    if not 1 <= lead <= 64:
        raise ConfigError(f"lead is {lead}: it must lie between 1 and 64 groups of launches")
    content = bytearray(SIZE_BYTES)
    values = {
        "magic": MAGIC,
        "version": VERSION,
        "mode": QuotaMode(mode),
        "quota_ppm": quota_ppm(quota_pct),
        "lead": lead,
        "window_ns": duration_ns("window_ms", window_ms),
        "group_ns": duration_ns("group_ms", group_ms),
    }
    for name, value in values.items():
        offset, code = FIELDS[name]
        struct.pack_into(f"<{code}", content, offset, value)
    return content


def check_head(path: str | Path, content: bytes) -> None:
    """Raise QuotaBlockError unless `content`, the first `SIZE_BYTES` of a file, are those of a block."""
    if len(content) < SIZE_BYTES:
        raise QuotaBlockError(path, BlockFault.SHORT, f"{len(content)} of {SIZE_BYTES} bytes")
    magic, version = struct.unpack_from("<QI", content)
    if magic != MAGIC:
        raise QuotaBlockError(path, BlockFault.FOREIGN, f"it begins with {content[:8]!r}")
    if version != VERSION:
        raise QuotaBlockError(path, BlockFault.VERSION, f"{version}, and this RaPP knows {VERSION}")


def quota_ppm(quota_pct: float) -> int:
    """A quota in millionths.

    Raises:
        ConfigError: not in (0, 100], or below the resolution of a millionth.
    """
    if not (math.isfinite(quota_pct) and 0 < quota_pct <= 100):
        raise ConfigError(f"quota_pct is {quota_pct:g}: it must lie in (0, 100]")
    found = round(quota_pct * 1e4)
    if found < 1:
        raise ConfigError(f"quota_pct is {quota_pct:g}: 0.0001 is the smallest")
    return found


def duration_ns(name: str, value_ms: float) -> int:
    """A duration, ms, in whole ns, from 1 ns to `LONGEST_NS`.

    Raises:
        ConfigError: out of that range; the message begins with `name`.
    """
    if not (math.isfinite(value_ms) and 1 <= round(value_ms * MILLION) <= LONGEST_NS):
        raise ConfigError(
            f"{name} is {value_ms:g}: it must be positive, and {LONGEST_NS / MILLION:g} at most"
        )
    return round(value_ms * MILLION)


def system_fault(path: str | Path, error: OSError) -> QuotaBlockError:
    """What the system's refusal means for the block at `path`."""
    known = {
        errno.ENOENT: BlockFault.MISSING,
        errno.ENOTDIR: BlockFault.MISSING,
        errno.EACCES: BlockFault.DENIED,
        errno.EPERM: BlockFault.DENIED,
        errno.EROFS: BlockFault.DENIED,
        errno.EEXIST: BlockFault.EXISTS,
    }
    fault = known.get(error.errno or 0, BlockFault.SYSTEM)
    detail = "" if fault in (BlockFault.MISSING, BlockFault.EXISTS) else error.strerror or str(error)
    return QuotaBlockError(path, fault, detail)
