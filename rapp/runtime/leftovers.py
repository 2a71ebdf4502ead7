"""What a killed process left on a GPU, and undoing it; every start of a profiler and `rapp doctor` does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rapp.errors import RappError
from rapp.runtime.nvml import Nvml
from rapp.runtime.claim import abandoned, remove
from rapp.runtime.mps import control_of


def clean_up(root: Path | None = None) -> Sequence[str]:
    """Undo what processes of this user left that are gone, and say what it was, a line each.

    What cannot be undone stays, with the reason in its line, and is found again. Daemons and clocks of
    other users, and of processes that live, are never touched.
    """
    lines = []
    with abandoned(root) as found:
        for folder, state in found:
            of = f"{state.get('gpu_uuid')}, of pid {state.get('pid')}"
            try:
                lines += [f"{what} on {of}" for what in _undo(folder, state)] or [f"a claim on {of}"]
                remove(folder)
            except RappError as error:
                lines.append(f"{of}: {error}")
    return lines


def _undo(folder: Path, state: Mapping[str, Any]) -> Iterator[str]:
    if state.get("clocks_locked"):
        with contextlib.closing(Nvml()) as library:
            library.gpu(state["gpu_uuid"]).reset_clocks()
        yield "reset locked clocks"
    if program := state.get("mps_program"):
        control_of(folder, program).stop()
        yield "stopped an MPS daemon"
