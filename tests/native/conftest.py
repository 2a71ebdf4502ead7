"""What the tests of `native/` share: the library, the stub driver, and programs under them."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rapp.errors import RappError
from rapp.runtime.quota import QuotaBlock

NATIVE = Path(__file__).parents[2] / "native"
sys.path.insert(0, str(NATIVE))

from quota_harness import Built, build, environment, quota  # noqa: E402

Scenario = Callable[..., Any]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Library, stub and workload; tests are skipped where there is no C compiler."""
    try:
        return build(tmp_path_factory.mktemp("native"), "-j2")
    except RappError as error:
        if "needs make and a C compiler" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def parts(built: Built) -> ctypes.CDLL:
    """Functions of the library that it does not export, for tests of one part."""
    made = built.library.parent / "parts.so"
    sources = [NATIVE / "src" / name for name in ("bucket.c", "busy.c")]
    compiler = os.environ.get("CC", "cc")
    flags = ["-std=c11", "-O2", "-fPIC", "-shared", f"-I{NATIVE / 'src'}"]
    subprocess.run([compiler, *flags, "-o", made, *sources], check=True)
    return ctypes.CDLL(str(made))


@pytest.fixture
def block() -> Iterator[QuotaBlock]:
    """A control block: quota 50 %, window 40 ms, groups of 1 ms, 2 in flight."""
    with quota(50) as made:
        yield made


@pytest.fixture
def scenario(built: Built) -> Scenario:
    """Runs a function of scenarios.py in a process under library and stub; gives what it prints, from JSON.

    The process may say nothing on stderr but what `says` expects.
    """

    def run(
        name: str, block: QuotaBlock, *, variables: Mapping[str, str] | None = None, says: str = ""
    ) -> Any:
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("scenarios.py"), name],
            env={**environment(built, block), **(variables or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == "" if not says else says in done.stderr and done.stderr.count("\n") == 1
        return json.loads(done.stdout)

    return run
