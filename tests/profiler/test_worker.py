"""The worker process: what it passes on, how it can be lost, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.channel import Message
from profiler.device import Failure, MeasureError
from profiler.worker import WorkerSession, _read_exit, worker_session

HERE = Path(__file__).parent
MAKE = "worker_executors:make"


@pytest.fixture(autouse=True)
def _executors_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(HERE)
    yield


def scripted(deed: str = "work", **options: Any) -> AbstractContextManager[WorkerSession]:
    return worker_session(MAKE, {"deed": deed}, **options)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int, within_s: float = 10.0) -> bool:
    until_s = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < until_s:
        time.sleep(0.01)
    return not alive(pid)


def test_calls_and_answers_pass_through(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    with worker_session(MAKE, {"closed_file": str(closed)}) as session:
        assert session.sm_count is None
        session.prepare(4)
        assert (session.sm_count, session.peak_memory_mib) == (3, 40)
        block = session.run(3)
        assert block.wall_ms.tolist() == [1, 2, 3]
        assert block.device_ms is not None
        assert block.device_ms.tolist() == [0.5, 1, 1.5]
        assert (block.launch_ms, block.disturbance) == (None, None)
        session.set_quota(50)
        assert session.run(7).wall_ms.tolist() == [2, 4, 6, 8, 10, 12, 14]
        assert session.run(7).disturbance == "throttled"
        outputs = session.outputs()
        assert outputs is not None
        assert [(one.dtype, one.tolist()) for one in outputs] == [
            (np.float32, [[0, 1, 2], [3, 4, 5]]),
            (np.bool_, [True, False]),
            (np.float16, 0.5),
        ]
        pid = session.pid
        assert alive(pid)
    assert not alive(pid)
    assert closed.read_text() == "closed"


def test_an_executor_without_outputs_has_none() -> None:
    with scripted("no outputs") as session:
        assert session.outputs() is None


def test_a_bug_of_the_executor_keeps_its_traceback() -> None:
    with scripted("bug") as session, pytest.raises(MeasureError) as caught:
        session.run(1)
    (note,) = caught.value.__notes__
    assert 'raise ZeroDivisionError("a bug of the executor")' in note
    assert "Traceback" not in str(caught.value)


def test_a_typed_failure_passes_through_and_the_session_goes_on() -> None:
    with scripted() as session:
        with pytest.raises(MeasureError) as caught:
            session.prepare(16)
        assert (caught.value.failure, caught.value.detail) == (Failure.OUT_OF_MEMORY, "batch 16")
        session.prepare(1)
        assert len(session.run(2).wall_ms) == 2


@pytest.mark.parametrize(
    ("deed", "failure", "said"),
    [
        ("crash", Failure.CRASHED, r"SIGSEGV in run; it last said: about to crash$"),
        ("killed", Failure.CRASHED, r"SIGKILL in run; it last said: so far so good$"),
        ("exit", Failure.CRASHED, r"exit code 7 in run; it last said: fatal: no such kernel$"),
        ("bug", Failure.CRASHED, r"exit code 1 .*ZeroDivisionError: a bug of the executor"),
        ("garbage", Failure.CRASHED, r"its answer to run is none"),
    ],
)
def test_a_lost_worker_is_a_typed_failure_from_then_on(deed: str, failure: Failure, said: str) -> None:
    with scripted(deed) as session:
        session.prepare(1)
        for call in (session.run, session.prepare, session.run):
            with pytest.raises(MeasureError, match=said) as caught:
                call(1)
            assert caught.value.failure == failure
            assert "\n" not in str(caught.value)
        assert not alive(session.pid)
        assert session.peak_memory_mib == 10


@pytest.mark.parametrize(
    ("deed", "failure"), [("no memory", Failure.OUT_OF_MEMORY), ("no extra", Failure.DEVICE)]
)
def test_expected_errors_leave_the_worker_alive(deed: str, failure: Failure) -> None:
    with scripted(deed) as session:
        with pytest.raises(MeasureError) as caught:
            session.run(1)
        assert caught.value.failure == failure
        session.prepare(1)


@pytest.mark.parametrize("deed", ["hang", "hang locked", "half a message"])
def test_a_worker_that_hangs_is_killed(deed: str) -> None:
    with scripted(deed, call_timeout_s=0.5) as session:
        before_s = time.monotonic()
        with pytest.raises(MeasureError, match=r"no answer to run in 0\.5 s") as caught:
            session.run(1)
        assert caught.value.failure == Failure.TIMEOUT
        assert caught.value.hits_larger_batches
        assert time.monotonic() - before_s < 10
        assert not alive(session.pid)
        assert ("it last said: waiting for the device" in str(caught.value)) == (deed == "hang")


def test_a_start_that_is_refused_or_slow_is_a_typed_failure() -> None:
    with pytest.raises(MeasureError, match="partition not obtained: 3 of 4 cores"), scripted("refuse"):
        pytest.fail("there is no session")
    with pytest.raises(MeasureError) as caught, scripted("slow start", start_timeout_s=0.5):
        pytest.fail("there is no session")
    assert caught.value.failure == Failure.TIMEOUT
    with (
        pytest.raises(MeasureError, match="No module named 'nowhere'"),
        worker_session("nowhere:make", {}),
    ):
        pytest.fail("there is no session")


def test_an_exception_in_the_parent_ends_the_worker() -> None:
    with pytest.raises(KeyError), scripted() as session:
        pid = session.pid
        raise KeyError
    assert not alive(pid)


def test_an_interrupt_in_the_middle_of_a_call_ends_the_worker() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), scripted("hang") as session:
            pid = session.pid
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            session.run(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not alive(pid)


def test_what_the_worker_started_ends_with_it(tmp_path: Path) -> None:
    file = tmp_path / "child"
    env = {**os.environ, "CHILD_FILE": str(file)}
    with (
        worker_session(MAKE, {"deed": "with a child"}, env=env, call_timeout_s=2.0) as session,
        pytest.raises(MeasureError),
    ):
        session.run(1)
    assert gone(int(file.read_text()))


def test_the_environment_is_exactly_what_is_given() -> None:
    env = {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50"}
    with worker_session("worker_executors:make_environment", {}, env=env) as session:
        outputs = session.outputs()
    assert outputs is not None
    lines = outputs[0].tobytes().decode().splitlines()
    # Python itself sets LC_CTYPE where no locale is set (PEP 538).
    assert [line for line in lines if not line.startswith("LC_CTYPE=")] == [
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=50"
    ]


PARENT = """
import sys
from profiler.worker import worker_session
with worker_session("worker_executors:make", {"deed": sys.argv[1]}) as session:
    print(session.pid, flush=True)
    if sys.argv[1] == "work":
        sys.stdin.read()
    session.run(1)
"""


@pytest.mark.parametrize("deed", ["work", "hang", "hang locked"])
def test_a_worker_dies_with_its_parent_even_on_kill_9(deed: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, deed], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    with parent.stdin, parent.stdout:
        pid = int(parent.stdout.readline())
        time.sleep(0.3)  # into the run
        assert alive(pid)
        parent.kill()
        parent.wait()
        assert gone(pid)


def test_a_kill_counts_as_out_of_memory_if_the_kernel_says_so() -> None:
    assert _read_exit(-signal.SIGKILL, oom_kills=1)[0] == Failure.OUT_OF_MEMORY
    assert _read_exit(-signal.SIGKILL, oom_kills=0) == (Failure.CRASHED, "ended by SIGKILL")
    assert _read_exit(-signal.SIGABRT, oom_kills=1) == (Failure.CRASHED, "ended by SIGABRT")
    assert _read_exit(3, oom_kills=1) == (Failure.CRASHED, "ended with exit code 3")


def test_nothing_is_left_open() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with scripted():
        pass
    before = descriptors()
    for deed in ("work", "exit"):
        with scripted(deed) as session:
            if deed == "exit":
                with pytest.raises(MeasureError):
                    session.run(1)
    assert descriptors() == before


def test_the_end_of_the_stream_ends_it_in_the_middle_of_a_run() -> None:
    # What is left where the kernel sends no signal at the parent's death.
    with scripted("hang") as session:
        session._channel.send(Message({"call": "run", "count": 1}))
        time.sleep(0.2)
        session._channel.close()
        assert gone(session.pid)
