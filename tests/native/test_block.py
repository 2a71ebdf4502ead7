"""The control block: found or not, its layout, and the switch."""

from __future__ import annotations

import re
import struct
import subprocess
import time
from pathlib import Path

import pytest
from quota_harness import NATIVE, Built, environment, measure, started

from rapp.runtime.quota import QuotaBlock
from rapp.runtime.quota_layout import FIELDS, MAGIC, SIZE_BYTES, VERSION, QuotaMode

ONE_RUN = ("--runs", "1", "--kernels", "3")


def test_both_sides_have_one_layout() -> None:
    header = (NATIVE / "src" / "quota_block.h").read_text()
    offsets = {
        name: int(at) for name, at in re.findall(r"offsetof\(struct quota_block, (\w+)\) == (\d+)", header)
    }
    assert offsets == {name: at for name, (at, _) in FIELDS.items() if name != "reserved"}
    types = {"Q": "uint64_t", "q": "int64_t", "I": "uint32_t"}
    for name, (_, code) in FIELDS.items():
        assert re.search(rf"\b(?:_Atomic )?{types[code]} (?:\w+, )?{name}\b", header), name
    assert f"UINT64_C({MAGIC:#x})" in header
    assert f"QUOTA_VERSION = {VERSION}," in header
    assert f"sizeof(struct quota_block) == {SIZE_BYTES}" in header


def changed(offset: int, code: str, value: int) -> bytes:
    with QuotaBlock.anonymous() as made:
        content = bytearray(made._map[:SIZE_BYTES])
    struct.pack_into(f"<{code}", content, offset, value)
    return bytes(content)


BAD = {
    "not a control block of a time quota": changed(0, "Q", 7),
    "a control block of another version": changed(8, "I", 2),
    "too short for a control block": changed(0, "Q", MAGIC)[:100],
    "holds a quota, window or mode that cannot be": changed(16, "I", 0),
    "No such file or directory": None,
}


def run_with(built: Built, path: str | None, required: str) -> subprocess.CompletedProcess[str]:
    variables = environment(built, None) | {"LD_PRELOAD": str(built.library), "RAPP_QUOTA_REQUIRED": required}
    if path is not None:
        variables["RAPP_QUOTA_BLOCK"] = path
    return subprocess.run(
        [built.workload, *ONE_RUN], env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("reason", BAD)
def test_a_block_that_cannot_be_used(built: Built, tmp_path: Path, reason: str) -> None:
    path = tmp_path / "block"
    if (content := BAD[reason]) is not None:
        path.write_bytes(content)
    ungated = run_with(built, str(path), "0")
    assert ungated.stderr == f"rapp-quota: {path}: {reason}; this process runs without a time quota\n"
    assert (ungated.returncode, len(ungated.stdout.splitlines())) == (0, 1)
    ended = run_with(built, str(path), "1")
    assert ended.stderr == f"rapp-quota: {path}: {reason}; ends, as RAPP_QUOTA_REQUIRED=1 asks\n"
    assert (ended.returncode, ended.stdout) == (2, "")


def test_no_block_is_named(built: Built) -> None:
    assert "RAPP_QUOTA_BLOCK is not set" in run_with(built, None, "0").stderr
    assert run_with(built, None, "1").returncode == 2


def test_a_program_without_cuda_hears_nothing(built: Built) -> None:
    done = subprocess.run(
        ["env", "true"],
        env={"LD_PRELOAD": str(built.library), "RAPP_QUOTA_REQUIRED": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_off(built: Built, block: QuotaBlock) -> None:
    block.quota_pct, block.mode = 0.1, QuotaMode.OFF
    done = measure(built, block, "--runs", "5", "--kernels", "20")
    assert len(done.busy) == 100
    assert done.statistics is not None
    assert (done.statistics.launches, done.statistics.used_ms, done.statistics.waits) == (0, 0, 0)


def test_switching_off_ends_a_wait(built: Built, block: QuotaBlock) -> None:
    """100 ms of kernels at 0.1 % would take over a minute."""
    block.quota_pct = 0.1
    with started(built, block, "--runs", "1", "--kernels", "100", "--ns", "1000000") as (process, _):
        deadline = time.monotonic() + 10
        while block.statistics.launches == 0 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.3)
        assert process.poll() is None, "the quota holds it back"
        block.mode = QuotaMode.OFF
        process.wait(timeout=5)
        assert process.returncode == 0
    block.mode, block.quota_pct = QuotaMode.GPU_TIME, 100
    measure(built, block, *ONE_RUN)
    assert struct.unpack_from("<q", block._map, FIELDS["tokens_ns"][0])[0] > 30e6, "the debt was forgotten"


def test_a_higher_quota_ends_a_wait(built: Built, block: QuotaBlock) -> None:
    block.quota_pct = 0.1
    with started(built, block, "--runs", "1", "--kernels", "100", "--ns", "1000000") as (process, _):
        time.sleep(0.3)
        assert process.poll() is None
        block.quota_pct = 100
        process.wait(timeout=5)
        assert process.returncode == 0
