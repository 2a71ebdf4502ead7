"""Limits of control groups, from trees of files as kernels of both versions lay them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapp.runtime.cgroup import core_limit, memory_limit_mib

V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)


def tree(folder: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    proc = folder / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text("22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n" + mounts)
    for name, content in files.items():
        file = folder / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def test_version_2_takes_the_least_on_the_way_up(tmp_path: Path) -> None:
    files = {
        "cpu.max": "max 100000\n",
        "user/cpu.max": "250000 100000\n",
        "user/job/cpu.max": "400000 100000\n",
        "user/job/inner/cpu.max": "100000 100000\n",
        "user/memory.max": f"{3 << 30}\n",
        "user/job/memory.max": "max\n",
    }
    root = tree(tmp_path, "0::/user/job\n", V2_MOUNT.format(root="/"), files)
    assert core_limit(root) == 2.5
    assert memory_limit_mib(root) == 3 * 1024


def test_version_1_has_a_folder_for_each_controller(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/job/memory.limit_in_bytes": f"{1 << 30}\n",
    }
    groups = "4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n"
    root = tree(tmp_path, groups, V1_MOUNTS.format(root="/"), files)
    assert core_limit(root) == 0.5
    assert memory_limit_mib(root) == 1024


def test_no_limit_is_none(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    root = tree(tmp_path, "4:memory:/\n1:cpu,cpuacct:/\n0::/\n", V1_MOUNTS.format(root="/"), files)
    assert core_limit(root) is None
    assert memory_limit_mib(root) is None


@pytest.mark.parametrize("shown", ["/docker/abc", "/"])
def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path, shown: str) -> None:
    # The path of the group is the host's, and the mount shows only that group.
    files = {"cpu.max": "150000 100000\n", "memory.max": f"{1 << 29}\n"}
    root = tree(tmp_path, "0::/docker/abc\n", V2_MOUNT.format(root=shown), files)
    assert core_limit(root) == 1.5
    assert memory_limit_mib(root) == 512


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    assert core_limit(tmp_path) is None
    assert memory_limit_mib(tmp_path) is None
