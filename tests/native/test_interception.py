"""Every way in which a program finds the driver leads to the hooks, and nothing else does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from quota_harness import NATIVE, Built, environment, measure, quota

from rapp.runtime.quota import QuotaBlock

WAYS = ("link", "dlsym", "dlsym-ptsz", "proc", "proc-v1", "proc-ptsz", "nested", "nested-v1")
APIS = ("kernel", "ex", "cooperative", "multi", "graph")


@pytest.mark.parametrize("way", WAYS)
def test_every_launch_is_gated(built: Built, way: str) -> None:
    def check(api: str) -> None:
        arguments = ("--resolve", way, "--api", api, "--kernels", "30", "--ns", "20000", "--runs", "2")
        with quota(100) as block:
            done = measure(built, block, *arguments)
        assert done.statistics is not None
        assert done.statistics.launches == len(done.busy) == (2 if api == "graph" else 60), api
        assert done.statistics.used_ms >= 1.1, api

    with ThreadPoolExecutor() as pool:
        list(pool.map(check, APIS))


@pytest.mark.parametrize("sync", ["ctx", "stream", "event", "poll", "copy"])
def test_idle_time_is_not_charged(built: Built, block: QuotaBlock, sync: str) -> None:
    block.quota_pct = 100
    arguments = ("--kernels", "30", "--ns", "20000", "--idle-us", "10000", "--sync", sync, "--runs", "10")
    done = measure(built, block, *arguments)
    assert done.statistics is not None
    assert 5.9 <= done.statistics.used_ms <= 20, "6 ms of kernels, 100 ms of pauses"


def exported(library: Path) -> set[str]:
    names = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[-1] for line in names.splitlines()}


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm, of binutils")
def test_only_hooks_are_exported(built: Built) -> None:
    hooks = set(re.findall(r"\bX\((cu\w+),", (NATIVE / "src" / "hooks.h").read_text()))
    assert len(hooks) > 30
    assert exported(built.library) == hooks | {"dlsym"}
    assert hooks <= exported(built.stub / "libcuda.so.1"), "the stub has all that is hooked"


def compiled(source: Path, target: Path, *options: str) -> Path:
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O2", *options, "-o", target, source, "-ldl"]
    subprocess.run(command, check=True)
    return target


def test_the_next_symbol_is_still_that_after_the_caller(
    built: Built, block: QuotaBlock, tmp_path: Path
) -> None:
    """A library that wraps a function by RTLD_NEXT would find itself if that were after the quota library."""
    (tmp_path / "wrap.c").write_text(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <sys/types.h>\n"
        'pid_t getppid(void) { pid_t (*next)(void) = (pid_t (*)(void))dlsym(RTLD_NEXT, "getppid");'
        " return next() + 1; }\n"
    )
    wrap = compiled(tmp_path / "wrap.c", tmp_path / "wrap.so")
    variables = environment(built, block) | {"LD_PRELOAD": f"{built.library}:{wrap}"}
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getppid())"],
        env=variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == os.getpid() + 1


LOOK_UP = """
import ctypes
dlsym = ctypes.CDLL(None).dlsym
dlsym.restype = ctypes.c_void_p
print(dlsym(None, b"cuLaunchKernel"), dlsym(None, b"getpid") is not None)
"""


def test_where_there_is_no_driver_none_is_found(built: Built, block: QuotaBlock) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK_UP],
        env=environment(built, block), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["None", "True"]
    assert done.stderr == ""


FUTURE = """
#include <string.h>
typedef int (*launch)(int);
int cuLaunchKernel(int x) { return x; }
int cuLaunchKernel_v2(int x) { return x + 1; }
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long flags, int *status)
{
    (void)status, (void)flags;
    *function = strcmp(name, "cuLaunchKernel") ? 0 : version >= 14000 ? (void *)cuLaunchKernel_v2
                                                                     : (void *)cuLaunchKernel;
    return *function ? 0 : 500;
}
"""
ASK = """
import ctypes
cuda, found, status = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_int()
ask = lambda version: cuda.cuGetProcAddress_v2(
    b"cuLaunchKernel", ctypes.byref(found), version, ctypes.c_ulong(0), ctypes.byref(status))
real = ctypes.cast(cuda.cuLaunchKernel_v2, ctypes.c_void_p).value
hook = ctypes.cast(cuda.cuLaunchKernel, ctypes.c_void_p).value
assert ask(12000) == 0 and found.value == hook
assert ask(14000) == 0 and found.value == real
"""


@pytest.mark.parametrize("required", ["0", "1"])
def test_a_version_of_the_future(built: Built, block: QuotaBlock, tmp_path: Path, required: str) -> None:
    """A launch with unknown arguments is never taken for the known one, and not passed in silence."""
    (tmp_path / "future.c").write_text(FUTURE)
    compiled(tmp_path / "future.c", tmp_path / "libcuda.so.1", "-Wl,-soname,libcuda.so.1", "-Wl,-Bsymbolic")
    variables = environment(built, block) | {
        "LD_LIBRARY_PATH": str(tmp_path),
        "RAPP_QUOTA_REQUIRED": required,
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=variables, capture_output=True, text=True, check=False
    )
    assert "a newer version of cuLaunchKernel than this library knows" in done.stderr
    assert done.returncode == (2 if required == "1" else 0), done.stderr


def test_versions_of_a_name(built: Built, block: QuotaBlock) -> None:
    """cuCtxSynchronize has an argument since CUDA 13: each version gets its own hook."""
    ask = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
def hook(version):
    found, status = ctypes.c_void_p(), ctypes.c_int()
    arguments = ctypes.byref(found), version, ctypes.c_ulong(0), ctypes.byref(status)
    assert cuda.cuGetProcAddress_v2(b"cuCtxSynchronize", *arguments) == 0
    return found.value
pointer = lambda name: ctypes.cast(getattr(cuda, name), ctypes.c_void_p).value
assert hook(12080) == pointer("cuCtxSynchronize") != hook(13000) == pointer("cuCtxSynchronize_v2")
"""
    done = subprocess.run(
        [sys.executable, "-c", ask],
        env=environment(built, block),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
