"""The control block: its bytes, its life in the file system, and what is refused."""

from __future__ import annotations

import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.errors import ConfigError, RappError
from rapp.runtime import quota
from rapp.runtime.quota import QuotaBlock
from rapp.runtime.quota_layout import (
    FIELDS,
    MAGIC,
    SIZE_BYTES,
    VERSION,
    BlockFault,
    QuotaBlockError,
    QuotaMode,
    block_bytes,
    duration_ns,
    quota_ppm,
)

HEADER = next((Path(__file__).resolve().parents[3] / "native").rglob("quota_block.h"), None)


def test_the_bytes_are_those_that_the_c_library_expects(tmp_path: Path) -> None:
    QuotaBlock.create(tmp_path / "block", 12.3456, 33.5, mode=QuotaMode.OFF, lead=3, group_ms=0.5).close()
    content = (tmp_path / "block").read_bytes()
    assert content == struct.pack(
        "<8sIIIIQQIIqQ6Q16x", b"RAPPQG01", 1, 0, 123_456, 3, 33_500_000, 500_000, 0, 0, 0, 0, *[0] * 6
    )
    assert len(content) == SIZE_BYTES == 128


def test_the_table_has_no_gap_and_every_field_is_aligned() -> None:
    end = 0
    for offset, code in FIELDS.values():
        assert offset == end
        assert offset % struct.calcsize(f"={code}") == 0
        end = offset + struct.calcsize(f"={code}")
    assert end == 112


@pytest.mark.skipif(HEADER is None, reason="native/ has no quota_block.h")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_c_header_has_the_same_layout(tmp_path: Path) -> None:
    told = {name: f"offsetof(struct quota_block, {name})" for name in FIELDS}
    told |= {"size": "sizeof(struct quota_block)", "MAGIC": "QUOTA_MAGIC", "VERSION": "QUOTA_VERSION"}
    lines = [f'printf("{name} %llu\\n", (unsigned long long)({value}));' for name, value in told.items()]
    head = f'#include <stdio.h>\n#include "{HEADER}"\n'
    (tmp_path / "layout.c").write_text(f"{head}int main(void) {{ {' '.join(lines)} }}\n")
    subprocess.run(["cc", "-o", tmp_path / "layout", tmp_path / "layout.c"], check=True)
    output = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True).stdout
    expected = {name: offset for name, (offset, _) in FIELDS.items()}
    expected |= {"size": SIZE_BYTES, "MAGIC": MAGIC, "VERSION": VERSION}
    assert {name: int(value) for name, value in map(str.split, output.splitlines())} == expected


def test_two_mappings_are_one_block(tmp_path: Path) -> None:
    with QuotaBlock.create(tmp_path / "block") as mine, QuotaBlock.open(tmp_path / "block") as theirs:
        assert (theirs.quota_pct, theirs.window_ms, theirs.mode) == (100, 40, QuotaMode.GPU_TIME)
        mine.quota_pct, mine.window_ms, mine.mode = 0.1, 25.5, QuotaMode.OFF
        assert (theirs.quota_pct, theirs.window_ms, theirs.mode) == (0.1, 25.5, QuotaMode.OFF)
        theirs.count_charge(1_500_000, 7)
        theirs.count_charge(500_000, 3)
        theirs.count_wait(250_000)
        assert mine.statistics == quota.QuotaStatistics(2, 2, 2.0, 0.25, 1, 7e-6)


def test_another_process_sees_and_makes_changes(tmp_path: Path) -> None:
    code = """
import sys
from rapp.runtime.quota import QuotaBlock
with QuotaBlock.open(sys.argv[1]) as block:
    print(block.quota_pct)
    block.quota_pct = 75
"""
    with QuotaBlock.create(tmp_path / "block", 30) as block:
        command = [sys.executable, "-c", code, str(block.path)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert (told, block.quota_pct) == ("30.0\n", 75)


def test_nobody_sees_half_a_value(tmp_path: Path) -> None:
    """All bytes of the two quotas differ; one that was cleared or written byte by byte would be a third."""
    code = """
import sys, time
from rapp.runtime.quota import QuotaBlock
with QuotaBlock.open(sys.argv[1]) as block:
    print(flush=True)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        for _ in range(1000):
            block.quota_pct, block.window_ms = 0.0771, 0.0000771
            block.quota_pct, block.window_ms = 100, 10000
"""
    command = [sys.executable, "-c", code, str(tmp_path / "block")]
    with QuotaBlock.create(tmp_path / "block", 100, 10000) as block:
        seen = set()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"\n"
            while writer.poll() is None:
                seen |= {block.limits()[1:] for _ in range(1000)}
        assert writer.returncode == 0
    assert {ppm for ppm, _ in seen} == {771, 1_000_000}
    assert {window_ns for _, window_ns in seen} == {77, 10_000_000_000}


def test_new_names_are_private_and_in_shared_memory() -> None:
    with QuotaBlock.create(quota_pct=10) as first, QuotaBlock.create(quota_pct=20) as second:
        try:
            assert first.path is not None
            assert second.path is not None
            assert first.path != second.path
            assert first.path.parent == second.path.parent == quota.default_folder()
            assert first.path.stat().st_mode & 0o777 == 0o600
        finally:
            first.unlink()
            second.unlink()
        assert not first.path.exists()
        first.quota_pct = 30
        assert first.quota_pct == 30
    first.unlink()
    if Path("/dev/shm").is_dir():
        assert quota.default_folder() == Path("/dev/shm")


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    with QuotaBlock.create(tmp_path / "block", 30) as block:
        with pytest.raises(QuotaBlockError, match="block: exists already") as caught:
            QuotaBlock.create(tmp_path / "block", 60)
        assert caught.value.fault is BlockFault.EXISTS
        assert block.quota_pct == 30
    assert [path.name for path in tmp_path.iterdir()] == ["block"]


def test_what_is_no_block_is_refused_by_its_kind(tmp_path: Path) -> None:
    good = bytes(block_bytes(50, 40, QuotaMode.GPU_TIME, 2, 1))
    damaged = {
        BlockFault.SHORT: good[:-1],
        BlockFault.FOREIGN: b"RAPPQG02" + good[8:],
        BlockFault.VERSION: good[:8] + b"\2" + good[9:],
        BlockFault.VALUE: good[:16] + bytes(4) + good[20:],
    }
    for fault, content in damaged.items():
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(QuotaBlockError, match="bad: ") as caught:
            QuotaBlock.open(tmp_path / "bad")
        assert caught.value.fault is fault
        assert isinstance(caught.value, RappError)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.fault) == (str(caught.value), fault)
    (tmp_path / "long").write_bytes(good + bytes(100))
    with QuotaBlock.open(tmp_path / "long") as block:
        assert block.quota_pct == 50


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for call in (QuotaBlock.open, QuotaBlock.create):
        for path in (tmp_path / "none" / "block", tmp_path / "file" / "block"):
            with pytest.raises(QuotaBlockError, match="no such file or folder") as caught:
                call(path)
            assert caught.value.fault is BlockFault.MISSING
    with pytest.raises(QuotaBlockError) as caught:
        QuotaBlock.open(tmp_path)
    assert caught.value.fault is BlockFault.SYSTEM


def test_what_this_user_may_not_write(tmp_path: Path) -> None:
    nobody = 65534
    with QuotaBlock.create(tmp_path / "block") as block:
        (tmp_path / "block").chmod(0o400)
        tmp_path.chmod(0o500)
        user = os.geteuid()
        try:
            if user == 0:  # root may do everything
                os.seteuid(nobody)
            for call in (
                lambda: QuotaBlock.open(tmp_path / "block"),
                lambda: QuotaBlock.create(tmp_path / "new"),
                block.unlink,
            ):
                with pytest.raises(QuotaBlockError, match="no permission") as caught:
                    call()
                assert caught.value.fault is BlockFault.DENIED
        finally:
            os.seteuid(user)
            tmp_path.chmod(0o700)


@given(st.floats(0.0001, 100))
def test_a_quota_is_kept_to_a_millionth(quota_pct: float) -> None:
    with QuotaBlock.anonymous(quota_pct) as block:
        assert block.quota_pct == pytest.approx(quota_pct, abs=0.5e-4 + 1e-12)
        block.quota_pct = kept = block.quota_pct
        assert block.quota_pct == kept


@pytest.mark.parametrize("wrong", [0.0, -1.0, 100.1, 0.00001, math.nan, math.inf])
def test_quotas_out_of_range_change_nothing(wrong: float) -> None:
    with pytest.raises(ConfigError, match="quota_pct is "):
        quota_ppm(wrong)
    with QuotaBlock.anonymous(50) as block:
        with pytest.raises(ConfigError):
            block.quota_pct = wrong
        assert block.quota_pct == 50


@pytest.mark.parametrize("wrong", [0.0, -1.0, 1e-7, 10_001.0, math.nan, math.inf])
def test_windows_out_of_range_change_nothing(wrong: float) -> None:
    with pytest.raises(ConfigError, match="group_ms is "):
        duration_ns("group_ms", wrong)
    with QuotaBlock.anonymous(50, 20) as block:
        with pytest.raises(ConfigError, match="window_ms is "):
            block.window_ms = wrong
        assert block.window_ms == 20


def test_arguments_are_checked_before_anything_is_made(tmp_path: Path) -> None:
    for wrong in ({"quota_pct": 0}, {"window_ms": -1}, {"lead": 0}, {"lead": 65}, {"group_ms": 0}):
        with pytest.raises(ConfigError):
            QuotaBlock.create(tmp_path / "block", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_is_closed_stays_closed(tmp_path: Path) -> None:
    block = QuotaBlock.create(tmp_path / "block")
    block.close()
    block.close()
    with pytest.raises(ValueError, match="released"):
        block.limits()
