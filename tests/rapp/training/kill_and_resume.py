"""Run by test_run.py: trainings that are killed, in processes of their own.

    python kill_and_resume.py DATA.pickle KILLED WHOLE LINES...

Forks a process that trains in the folder KILLED and kills it with SIGKILL as soon as its history has so
many lines (0: once the first curves are fitted), for each of LINES in turn. Then the training runs there to
its end, and another one, never stopped, in WHOLE. To fork what has imported everything saves seconds.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from pathlib import Path

import torch

from rapp.training import run
from rapp.training.encoder_fit import EncoderSettings

# Seconds of exporting to ONNX are not what is tested here.
run.export_model = lambda *_, **__: None  # type: ignore[assignment]
SETTINGS = run.RunSettings(EncoderSettings(steps=60, hidden=16, layers=1), seed=3, members=2)


def train(data: object, folder: Path) -> None:
    torch.set_num_threads(1)
    run.train_run(data, SETTINGS, folder)  # type: ignore[arg-type]


def child(data: object, folder: Path) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            train(data, folder)
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    return pid


def begun(folder: Path, lines: int) -> bool:
    if lines == 0:
        return any((folder / "state" / "curves").glob("*.npz"))
    history = folder / "history.csv"
    return history.exists() and len(history.read_bytes().splitlines()) > lines


def main() -> None:
    file, killed, whole, *moments = sys.argv[1:]
    data = pickle.loads(Path(file).read_bytes())
    for lines in map(int, moments):
        pid = child(data, Path(killed))
        until = time.monotonic() + 60
        while not begun(Path(killed), lines):
            assert time.monotonic() < until, f"the training did not come to line {lines}"
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"the training had ended before line {lines}"
    for folder in (killed, whole):
        _, status = os.waitpid(child(data, Path(folder)), 0)
        assert status == 0, folder


if __name__ == "__main__":
    main()
