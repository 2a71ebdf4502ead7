"""The servers that scripts/bench_serving.py compares: how each is installed, started, asked and ended."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rapp.errors import RappError
from scaler.live.load import run_load
from scaler.live.load_target import Target, kserve_target, raw_target
from scaler.live.load_url import Server

HERE = Path(__file__).parent
READY_TIMEOUT_S = 180.0
SERVERS = ("rapp", "litserve", "rayserve")
SHOWN = {"rapp": "rapp serve", "litserve": "LitServe", "rayserve": "Ray Serve"}
_START = 19
"""Start time among the fields of /proc/PID/stat that follow the name."""
PACKAGE = {"litserve": "litserve", "rayserve": "ray[serve]"}


@dataclass(frozen=True)
class Case:
    """A network to serve: its file, that with an open batch, shape of one sample, batch of the server."""

    name: str
    file: Path
    open_file: Path
    shape: tuple[int, ...]
    batch: int


@dataclass(frozen=True)
class Running:
    """A server that is up."""

    url: str
    pid: int
    target: Target
    token_file: Path
    ahead: str | None = None

    @contextlib.contextmanager
    def measured(self, ahead: str | None = None) -> Iterator[None]:
        """Let this process and all of the server go before all others as long as this lasts.

        On a machine that others use too, they then compete with each other alone. Not while a server starts,
        which would keep others waiting for nothing.

        Args:
            ahead: `nice` (-20), or `rr`, SCHED_RR: more exact, but it leaves others 50 ms of each second of a
                core, so that a server that keeps to one core has 5 % less at saturation. None: as the server
                was started with.
        """
        how = ahead if self.ahead and ahead else self.ahead
        if how is None:
            yield
            return
        _schedule(self.pid, os.SCHED_RR if how == "rr" else os.SCHED_OTHER, -20)
        try:
            yield
        finally:
            _schedule(self.pid, os.SCHED_OTHER, 0)

    def cpu_s(self) -> float:
        """CPU time of all its processes so far, s."""
        tick = os.sysconf("SC_CLK_TCK")
        return sum(sum(map(int, fields[11:13])) for fields in _family(self.pid).values()) / tick

    def memory_mib(self) -> float:
        """Memory of all its processes, MiB; shared memory counts once. Without mapped files: what part of a
        library is counted here depends on who else on the machine has loaded it."""
        total_kib = 0
        for pid in _family(self.pid):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                        total_kib += int(line.split()[1])
        return total_kib / 1024


def _family(pid: int) -> dict[int, list[str]]:
    """A process and its descendants: fields of /proc/PID/stat after the name."""
    stats: dict[int, list[str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stats[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
    found, new = {}, {pid}
    while new:
        found |= {one: stats[one] for one in new if one in stats}
        new = {one for one, fields in stats.items() if int(fields[1]) in new and one not in found}
    return found


def _schedule(pid: int, policy: int, nice: int) -> None:
    parameter = os.sched_param(5 if policy == os.SCHED_RR else 0)
    for one in (os.getpid(), *_family(pid)):
        for thread in Path(f"/proc/{one}/task").glob("*"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), policy, parameter)
                os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)
        # Linux shares out cores among sessions first, and niceness is for within one (sched(7), autogroup).
        with contextlib.suppress(OSError):
            Path(f"/proc/{one}/autogroup").write_text(str(nice))


def python_of(server: str, work: Path) -> Path:
    """The interpreter of a server's venv, which is made if it is not there."""
    if server == "rapp":
        return Path(sys.executable)
    folder = work / "venvs" / server
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {PACKAGE[server]} into {folder}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        same = [f"{name}=={importlib.metadata.version(name)}" for name in ("onnxruntime", "numpy")]
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE[server], *same], check=True)
        (folder / "complete").touch()
    return python


def version_of(server: str, work: Path) -> str:
    """The version of a server's package."""
    name = {"rapp": "rapp", "litserve": "litserve", "rayserve": "ray"}[server]
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run(
        [python_of(server, work), "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def functions_yaml(case: Case, work: Path) -> Path:
    """functions.yaml of one network on half of the cores."""
    file = work / f"{case.name}.yaml"
    file.write_text(
        f"version: 1\nfunctions:\n  - name: {case.name}\n    network: {case.file.absolute()}\n"
        "    slo_ms: 10000\n"
        f"    max_batch: {case.batch}\n    queue_limit: 1000\n    memory_mib: 1000\n"
        f"    initial: {{sm_pct: {100 / os.cpu_count():g}, quota_pct: 100, batch: {case.batch}}}\n"
    )
    return file


@contextlib.contextmanager
def running(server: str, case: Case, work: Path, ahead: str | None = None) -> Iterator[Running]:
    """Start a server, wait until it answers, and end it with all its processes."""
    token_file, port = work / "token", _free_port()
    python = python_of(server, work)
    if server == "rapp":
        command = [
            python.with_name("rapp"), "serve", functions_yaml(case, work), "--port", str(port),
            "--token-file", token_file,
        ]  # fmt: skip
    else:
        command = [python, HERE / f"bench_serving_{server}.py", case.open_file, str(port), str(case.batch)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    log = work / f"{server}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=work,
            start_new_session=True,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            yield Running(url, process.pid, _ready(server, case, url, process, log), token_file, ahead)
        finally:
            _end(process)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _ready(server: str, case: Case, url: str, process: subprocess.Popen[bytes], log: Path) -> Target:
    end_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        if process.poll() is not None:
            raise SystemExit(f"{server} ended: {log.read_text()[-2000:]}")
        with contextlib.suppress(RappError):
            at = Server.at(url)
            target = (
                kserve_target(at, case.name) if server == "rapp" else raw_target(at, "/predict", case.shape)
            )
            one = run_load(url, {case.name: np.array([0.0])}, 0.1, targets={case.name: target})
            if one.total.answered:
                return target
        if time.monotonic() > end_s:
            raise SystemExit(f"{server} is not ready after {READY_TIMEOUT_S:g} s: {log.read_text()[-2000:]}")
        time.sleep(0.3)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask all its processes to end, and after a while make them."""
    family = _family(process.pid)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    left = {pid: fields for pid, fields in family.items() if _started(pid) == fields[_START]}
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: what has the same number later has another start."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_START]
    except OSError:
        return None
