"""A session in a process of its own: the child's side, `python -m profiler.worker_main FD PARENT`.

FD is the child's end of a socket pair, PARENT the process that started it. The child answers one call
after another until it is told to close. It ends when its parent does: the kernel sends SIGKILL, and where
that is not to be had, the end of the stream tells, also in the middle of a run.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import queue
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.channel import Channel, Message
from profiler.device import Failure, MeasureError
from rapp.errors import RappError

if TYPE_CHECKING:
    from profiler.worker import Executor

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Serve the calls of the parent."""
    descriptor, parent = (int(argument) for argument in sys.argv[1:3])
    _die_with(parent)
    channel = Channel(socket.socket(fileno=descriptor))
    calls: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(channel, calls), daemon=True).start()
    executor: Executor | None = None
    while True:
        head = calls.get().head
        if head["call"] == "close":
            if executor is not None:
                executor.close()
            # The interpreter's own end would wait for the thread, and run what libraries left to the end.
            os._exit(0)
        try:
            if head["call"] == "start":
                executor = _make(head)
            assert executor is not None, "the first call is start"
            answer = _answer(executor, head)
        except MeasureError as error:
            answer = Message({"failure": error.failure.value, "detail": error.detail})
        except MemoryError as error:
            answer = Message({"failure": Failure.OUT_OF_MEMORY.value, "detail": str(error) or "on the host"})
        except RappError as error:
            answer = Message({"failure": Failure.DEVICE.value, "detail": str(error)})
        channel.send(answer)


def _die_with(parent: int) -> None:
    """Let the kernel end this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _receive(channel: Channel, calls: queue.SimpleQueue[Message]) -> None:
    """Hand on what the parent sends; end this process with the stream, even in the middle of a run."""
    try:
        while True:
            calls.put(channel.receive())
    except EOFError:
        pass
    finally:
        os._exit(1)


def _make(head: Any) -> Executor:
    """The executor that the parent names, from its modules."""
    sys.path += [entry for entry in head["path"] if entry not in sys.path]
    module, _, function = head["make_executor"].partition(":")
    executor: Executor = getattr(importlib.import_module(module), function)(**head["arguments"])
    return executor


def _answer(executor: Executor, head: Any) -> Message:
    """Do what is asked; the message that says what came of it."""
    said: dict[str, Any] = {}
    arrays: list[Any] = []
    match head["call"]:
        case "prepare":
            executor.prepare(head["batch"])
        case "set_quota":
            executor.set_quota(head["quota_pct"])
        case "run":
            block = executor.run(head["count"])
            times = {
                name: getattr(block, name)
                for name in ("wall_ms", "device_ms", "launch_ms")
                if getattr(block, name) is not None
            }
            said |= {"times": list(times), "disturbance": block.disturbance}
            arrays = list(times.values())
        case "outputs":
            outputs = executor.outputs()
            said["has_outputs"] = outputs is not None
            arrays = [np.asarray(output) for output in outputs or ()]
    said |= {"sm_count": executor.sm_count, "peak_memory_mib": executor.peak_memory_mib}
    return Message(said, arrays)


if __name__ == "__main__":
    main()
