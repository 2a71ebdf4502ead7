"""What a killed process left on a GPU, and undoing it; every start of a profiler and `rapp doctor` does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapp.errors import RappError
from rapp.runtime.claim import abandoned, remove
from rapp.runtime.mps import control_of
from rapp.runtime.nvml import Nvml


@dataclass(frozen=True, slots=True)
class Leftover:
    """What was left on a GPU, in words, and whether it has been undone."""

    text: str
    undone: bool


def clean_up(root: Path | None = None) -> Sequence[Leftover]:
    """Undo what processes of this user left that are gone.

    What cannot be undone stays, its text says why, and it is found again. Daemons and clocks of other users,
    and of processes that live, are never touched.

    Args:
        root: folder of claims; None: the user's.

    Raises:
        ClaimError: that folder is not a private folder of this user.
    """
    leftovers: list[Leftover] = []
    with abandoned(root) as found:
        for folder, state in found:
            of = f"{state.get('gpu_uuid')}, of pid {state.get('pid')}"
            try:
                undone = [f"{what} on {of}" for what in _undo(folder, state)]
                remove(folder)
                leftovers += [Leftover(text, True) for text in undone or [f"dropped a claim on {of}"]]
            except RappError as error:
                leftovers.append(Leftover(f"{of}: {error}", False))
    return leftovers


def _undo(folder: Path, state: Mapping[str, Any]) -> Iterator[str]:
    if state.get("clocks_locked"):
        with contextlib.closing(Nvml()) as library:
            library.gpu(state["gpu_uuid"]).reset_clocks()
        yield "reset locked clocks"
    if program := state.get("mps_program"):
        control_of(folder, program).stop()
        yield "stopped an MPS daemon"
