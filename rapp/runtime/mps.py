"""SM partitions: a private daemon of NVIDIA's Multi-Process Service (MPS) for one GPU.

    with GpuClaim(uuid) as claim, MpsDaemon(claim) as daemon:
        environment = {**os.environ, **daemon.client_environment(sm_pct=50)}
        ...                                  # start a process with it; its partition is fixed from then on

A program that finds no daemon runs *without* MPS and ignores its percentage, and says nothing (man
nvidia-cuda-mps-control). So a client checks itself: `MpsControl.check_client`, and the number of
multiprocessors that the driver shows it (`rapp.runtime.partition`).

Commands, files and variables: docs.nvidia.com/deploy/mps, "Legacy MPS v2 Interface" and "Tools and
Interface Reference". Tested against a program that imitates the daemon; it has never run on a physical GPU.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rapp.errors import RappError
from rapp.runtime.claim import GpuClaim
from rapp.runtime.processes import end_processes, processes_with

CONTROL = "nvidia-cuda-mps-control"
"""Name of the control program; the server's begins alike."""

_PIPES, _LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
_PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"

_SUN_PATH_BYTES = 107
"""Longest path of a Unix socket (sun_path of <linux/un.h>, less its final zero)."""
_LONGEST_SOCKET = "control_privileged"
"""Longest name of a socket that the daemon makes in its pipe directory."""
_POLL_S = 0.02
_QUIT_S = 3
"""For clients to end before the daemon forces its servers down, s."""


class MpsError(RappError):
    """MPS cannot be had, or does not do what it was asked to."""


def control_program() -> str:
    """Path of the control program.

    Raises:
        MpsError: it is not on PATH.
    """
    if path := shutil.which(CONTROL):
        return path
    package = "it comes with the NVIDIA driver (on Debian and Ubuntu: package nvidia-compute-utils-<version>)"
    raise MpsError(f"no {CONTROL} on PATH: {package}; without it only SM 100 % can be measured")


@dataclass(frozen=True, slots=True)
class MpsControl:
    """A daemon as one talks to it.

    Args:
        pipes: its pipe directory. logs: its log directory. program: path of the control program.
        timeout_s: longest that an answer may take, s.
    """

    pipes: Path
    logs: Path
    program: str
    timeout_s: float = 10

    @classmethod
    def of_client(cls) -> Self:
        """The daemon that the environment of this process names.

        Raises:
            MpsError: it names none, or there is no control program.
        """
        if not (pipes := os.environ.get(_PIPES)):
            raise MpsError(f"{_PIPES} is not set: this process runs without MPS")
        return cls(Path(pipes), Path(os.environ.get(_LOGS, pipes)), control_program())

    def command(self, text: str) -> str:
        """The daemon's answer to one line.

        Raises:
            MpsError: it refuses, or does not answer in time.
        """
        try:
            done = subprocess.run(
                [self.program], input=f"{text}\n", env=self.environment(), timeout=self.timeout_s,
                capture_output=True, text=True, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            late = f"the MPS daemon did not answer `{text}` within {self.timeout_s:g} s"
            raise MpsError(f"{late}: read {self.logs}/control.log, and run `rapp doctor`") from error
        except OSError as error:
            raise MpsError(f"{self.program} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            raise MpsError(f"the MPS daemon refused `{text}`: {_one_line(done.stderr or done.stdout)}")
        return done.stdout.strip()

    def environment(self, **extra: str) -> dict[str, str]:
        """This process's environment, with this daemon's variables of MPS and no others."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_MPS_")}
        return {**kept, _PIPES: str(self.pipes), _LOGS: str(self.logs), **extra}

    def server_pids(self) -> frozenset[int]:
        """The daemon's servers; there is none before the first client."""
        return frozenset(_numbers(self.command("get_server_list")))

    def client_pids(self) -> frozenset[int]:
        """Processes that use the daemon's servers now."""
        lists = (self.command(f"get_client_list {server}") for server in self.server_pids())
        return frozenset(pid for listed in lists for pid in _numbers(listed))

    def check_client(self, pid: int) -> None:
        """Check that the process `pid`, which has a CUDA context, is a client of the daemon.

        Raises:
            MpsError: it is not, so that its percentage was ignored.
        """
        if pid not in self.client_pids():
            text = f"process {pid} is not among the clients of the MPS daemon in {self.pipes}"
            raise MpsError(
                f"{text}: it runs without MPS; is another CUDA_VISIBLE_DEVICES or user in its way?"
            )

    def stop(self, ask: bool = True) -> None:
        """End daemon and servers, by word or else by signal; nothing happens where there are none.

        Args:
            ask: whether to try a word first; no use for a daemon that does not answer.

        Raises:
            MpsError: something of it cannot be ended.
        """
        if ask and (self.pipes / "control").exists():
            with contextlib.suppress(MpsError):  # it hangs or crashed: the signals follow
                self.command(f"quit -t {_QUIT_S}")
                deadline_s = time.monotonic() + self.timeout_s
                while self._processes() and time.monotonic() < deadline_s:
                    time.sleep(_POLL_S)
        if left := end_processes(self._processes, grace_s=self.timeout_s / 2):
            pids = ", ".join(map(str, left))
            raise MpsError(f"the MPS daemon does not end (pid {pids}): try `sudo kill -9 {pids}`")

    def _processes(self) -> set[int]:
        # By name and pipe directory, not by pid file: a number can be another process's by now.
        return processes_with("nvidia-cuda-mps-", _PIPES, str(self.pipes))


class MpsDaemon:
    """A daemon of this process's own; a context manager.

    Args:
        claim: on the GPU, whose release stops the daemon. program: the control program; None: from PATH.
        timeout_s: longest that the daemon may take to start or answer, s.

    Raises:
        MpsError: there is no control program, or the path of its socket would be too long.
    """

    def __init__(self, claim: GpuClaim, program: str | None = None, timeout_s: float = 10) -> None:
        self._claim = claim
        self.control = control_of(claim.folder, program or control_program(), timeout_s)
        length = len(os.fsencode(self.control.pipes / _LONGEST_SOCKET))
        if length > _SUN_PATH_BYTES:
            path = f"the path of the MPS daemon's socket has {length} bytes, {_SUN_PATH_BYTES} are allowed"
            raise MpsError(f"{path}: set TMPDIR to a folder with a shorter name than {claim.folder.parent}")

    def start(self) -> None:
        """Start the daemon and wait until it answers.

        Raises:
            MpsError: it refuses, or does not answer in time; nothing is left of it.
        """
        control = self.control
        self._claim.note(mps_program=control.program)
        self._claim.on_release(control.stop)
        for folder in (control.pipes, control.logs):
            folder.mkdir(mode=0o700)
        # A UUID, for an index would be counted anew behind CUDA_VISIBLE_DEVICES.
        environment = control.environment(CUDA_VISIBLE_DEVICES=self._claim.gpu_uuid)
        said = control.logs / "start"
        try:
            # Into a file: a daemon that keeps a pipe open would keep us waiting.
            with said.open("wb") as output:
                done = subprocess.run(
                    [control.program, "-d"], env=environment, timeout=control.timeout_s,
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise self._failed(f"did not start within {control.timeout_s:g} s") from error
        except OSError as error:
            raise self._failed(f"cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            raise self._failed(f"refused to start: {_one_line(said.read_text(errors='replace'))}")
        self._wait()

    def _wait(self) -> None:
        deadline_s = time.monotonic() + self.control.timeout_s
        while not (self.control.pipes / "control").exists():
            if time.monotonic() > deadline_s:
                raise self._failed("made no socket")
            time.sleep(_POLL_S)
        try:
            self.control.command("get_server_list")
        except MpsError as error:
            raise self._failed(str(error)) from error

    def _failed(self, what: str) -> MpsError:
        log = self.control.logs / "control.log"
        last = _one_line(log.read_text(errors="replace")[-400:]) if log.exists() else ""
        self.stop()
        return MpsError(
            f"{CONTROL} {what}{f'; its log ends: {last}' if last else ''}: run `rapp doctor --gpu`"
        )

    def client_environment(self, sm_pct: float) -> Mapping[str, str]:
        """What the environment of a client must have before CUDA is first used in it.

        Args:
            sm_pct: its share of the multiprocessors, %, in (0, 100].
        """
        return {
            _PIPES: str(self.control.pipes),
            _LOGS: str(self.control.logs),
            _PERCENTAGE: f"{sm_pct:g}",
            "CUDA_VISIBLE_DEVICES": self._claim.gpu_uuid,
        }

    def stop(self, ask: bool = True) -> None:
        """Stop the daemon, as `MpsControl.stop`, and remove its files; may be called again."""
        self.control.stop(ask)
        for folder in (self.control.pipes, self.control.logs):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def control_of(folder: Path, program: str, timeout_s: float = 10) -> MpsControl:
    """The daemon that lives, or lived, in the folder of a claim."""
    return MpsControl(folder / "p", folder / "l", program, timeout_s)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split() if word.isdigit()]


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "it gave no reason"
