"""A session in a process of its own: the parent's side.

    with worker_session("profiler.devices.cpu_executor:make_executor", {"cores": [0]}) as session:
        session.prepare(batch=1)

A network that crashes, hangs or eats all memory takes its process with it and nothing else: the campaign
gets a `MeasureError` and goes on. `profiler.worker_main` is the child's side.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from profiler.channel import Array, Channel, GarbageError, Message
from profiler.device import Block, Failure, MeasureError
from rapp.types import FloatArray

START_TIMEOUT_S = 120.0
"""To import a runtime and take a device; the first start on a network file system is the slow one."""

CALL_TIMEOUT_S = 300.0
"""Of one call: loading a network of gigabytes, or a block of batches of 20 s and more."""

_CLOSE_TIMEOUT_S = 10.0
_EXIT_TIMEOUT_S = 2.0


class Executor(Protocol):
    """What runs the network in the child. Every method may raise `MeasureError`.

    Any other `RappError` ends as `Failure.DEVICE` with its line. Any other exception is a bug: it ends the
    child with its traceback, and the point as `Failure.CRASHED`.
    """

    @property
    def sm_count(self) -> int | None:
        """As `Session.sm_count`."""

    @property
    def peak_memory_mib(self) -> float | None:
        """As `Session.peak_memory_mib`."""

    def prepare(self, batch: int) -> None:
        """As `Session.prepare`."""

    def set_quota(self, quota_pct: float) -> None:
        """As `Session.set_quota`."""

    def run(self, count: int) -> Block:
        """As `Session.run`."""

    def outputs(self) -> Sequence[Array] | None:
        """As `Session.outputs`."""

    def close(self) -> None:
        """Give back what it holds; the process ends after it."""


@contextmanager
def worker_session(
    make_executor: str,
    arguments: Mapping[str, Any],
    *,
    env: Mapping[str, str] | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
    call_timeout_s: float = CALL_TIMEOUT_S,
) -> Iterator[WorkerSession]:
    """Start a worker, and end it on leaving, whatever state it is in.

    The worker dies with the thread that called this, even if that is killed: do not hand the session to
    another thread and let this one end.

    Args:
        make_executor: `module:function` that the child calls with `arguments` to get its `Executor`.
        arguments: keyword arguments that JSON can hold.
        env: the whole environment of the child, set before it imports anything; None: this process's.
        start_timeout_s: longest time until the executor is there, s.
        call_timeout_s: longest time of any call, s; afterwards the child is killed.

    Raises:
        MeasureError: the executor could not be made in time, or says so.
    """
    session = WorkerSession(env, call_timeout_s)
    try:
        start = {"make_executor": make_executor, "arguments": dict(arguments), "path": sys.path}
        session.call("start", start_timeout_s, start)
        yield session
    finally:
        session.close()


class WorkerSession:
    """A `Session` whose work is done by a child process. Not for two threads at a time."""

    def __init__(self, env: Mapping[str, str] | None, call_timeout_s: float) -> None:
        self._call_timeout_s = call_timeout_s
        self._failed: MeasureError | None = None
        self._busy = False
        self._returncode: int | None = None
        self._sm_count: int | None = None
        self._peak_memory_mib: float | None = None
        self._oom_kills = _oom_kills()
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        command = [sys.executable, "-P", "-m", "profiler.worker_main", str(theirs.fileno()), str(os.getpid())]
        with theirs:
            self._process = subprocess.Popen(
                command,
                env=None if env is None else dict(env),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
                # A group of its own: Ctrl-C is for the campaign, and the group can be killed with all in it.
                # Not a session of its own, which Linux would schedule apart, whatever the user's `nice`.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    @property
    def sm_count(self) -> int | None:
        """As `Session.sm_count`."""
        return self._sm_count

    @property
    def peak_memory_mib(self) -> float | None:
        """As `Session.peak_memory_mib`, at the last answer."""
        return self._peak_memory_mib

    def prepare(self, batch: int) -> None:
        """As `Session.prepare`."""
        self.call("prepare", self._call_timeout_s, {"batch": batch})

    def set_quota(self, quota_pct: float) -> None:
        """As `Session.set_quota`."""
        self.call("set_quota", self._call_timeout_s, {"quota_pct": quota_pct})

    def run(self, count: int) -> Block:
        """As `Session.run`."""
        answer = self.call("run", self._call_timeout_s, {"count": count})
        times: dict[str, FloatArray] = {}
        for name, array in zip(answer.head.get("times", ()), answer.arrays, strict=False):
            times[name] = np.asarray(array, dtype=np.float64)
        if "wall_ms" not in times or any(array.shape != (count,) for array in times.values()):
            raise self._fail(Failure.CRASHED, f"its answer holds no times of {count} batches")
        return Block(**times, disturbance=answer.head.get("disturbance"))

    def outputs(self) -> Sequence[Array] | None:
        """As `Session.outputs`."""
        answer = self.call("outputs", self._call_timeout_s, {})
        return answer.arrays if answer.head.get("has_outputs") else None

    def call(self, name: str, timeout_s: float, arguments: Mapping[str, Any]) -> Message:
        """Let the child do something and wait for its answer.

        Raises:
            MeasureError: the child says so, or is lost; then every further call raises the same.
        """
        if self._failed is not None:
            raise MeasureError(self._failed.failure, self._failed.detail)
        self._busy = True
        try:
            self._channel.send(Message({"call": name, **arguments}), timeout_s)
            answer = self._channel.receive(timeout_s)
        except TimeoutError:
            raise self._fail(Failure.TIMEOUT, f"no answer to {name} in {timeout_s:g} s") from None
        except GarbageError as error:
            raise self._fail(Failure.CRASHED, f"its answer to {name} is none: {error}") from None
        except EOFError:
            raise self._fail(None, f"in {name}") from None
        self._busy = False
        if "failure" in answer.head:
            raise MeasureError(Failure(answer.head["failure"]), answer.head["detail"])
        self._sm_count = answer.head.get("sm_count")
        self._peak_memory_mib = answer.head.get("peak_memory_mib")
        return answer

    def close(self) -> None:
        """End the child: ask it if it waits for a call; by force if it is at work or does not answer."""
        if self._returncode is None and not self._busy:
            with suppress(TimeoutError, EOFError):
                self._channel.send(Message({"call": "close"}), _CLOSE_TIMEOUT_S)
                self._exited(_CLOSE_TIMEOUT_S)
        self._kill()
        self._channel.close()
        self._printed.close()

    def _fail(self, failure: Failure | None, detail: str) -> MeasureError:
        """End the child; the error for it, and for all further calls. None: what its exit says."""
        if failure is None:
            # A child that closed its end is about to be gone; by itself it tells how.
            self._exited(_EXIT_TIMEOUT_S)
        returncode = self._kill()
        if failure is None:
            failure, how = _read_exit(returncode, _oom_kills() - self._oom_kills)
            detail = f"{how} {detail}"
        said = _last_lines(self._printed)
        self._failed = MeasureError(failure, f"{detail}; it last said: {said[-1][:300]}" if said else detail)
        if len(said) > 1:
            self._failed.add_note("The worker's last lines:\n" + "\n".join(said))
        return self._failed

    def _kill(self) -> int:
        """Kill the child and every process that it started; its exit code."""
        if self._returncode is None:
            # The child is not reaped before, so that its number cannot belong to another process by now.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._returncode = self._process.wait()
        return self._returncode

    def _exited(self, timeout_s: float) -> bool:
        """Wait until the child has ended, without reaping it."""
        until_s = time.monotonic() + timeout_s
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while os.waitid(os.P_PID, self._process.pid, flags) is None:
            if time.monotonic() > until_s:
                return False
            time.sleep(0.002)
        return True


def _read_exit(returncode: int, oom_kills: int) -> tuple[Failure, str]:
    """How a child ended that nobody here killed, in words.

    SIGKILL alone may come from anyone. It counts as out of memory if the kernel's OOM killer ended some
    process meanwhile.
    """
    if returncode == -signal.SIGKILL and oom_kills > 0:
        return Failure.OUT_OF_MEMORY, "ended by the kernel's OOM killer"
    if returncode < 0:
        with suppress(ValueError):
            return Failure.CRASHED, f"ended by {signal.Signals(-returncode).name}"
    return Failure.CRASHED, f"ended with exit code {returncode}"


def _oom_kills() -> int:
    """Processes that the kernel's OOM killer has ended since boot, in any cgroup; 0: unknown."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _last_lines(printed: IO[bytes]) -> list[str]:
    """The last lines that the child printed, without empty ones."""
    size = printed.seek(0, os.SEEK_END)
    printed.seek(max(0, size - 8192))
    lines = [line.rstrip() for line in printed.read().decode(errors="replace").splitlines()]
    return [line for line in lines if line]
