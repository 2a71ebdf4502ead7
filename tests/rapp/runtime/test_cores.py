"""Cores as SM partitions: which, in what order, how many."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import RappError
from rapp.runtime.cores import SLACK_PCT, cores_of_share, pin, usable_cores, why_no_share


def machine(folder: Path, places: dict[int, tuple[int, int]], cpu_max: str = "max 100000") -> Path:
    """A tree with the package and the physical core of each logical one."""
    for core, (package, physical) in places.items():
        topology = folder / f"sys/devices/system/cpu/cpu{core}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "core_id").write_text(f"{physical}\n")
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text("0::/\n")
    (folder / "proc/self/mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (folder / "sys/fs/cgroup").mkdir(parents=True)
    (folder / "sys/fs/cgroup/cpu.max").write_text(cpu_max)
    return folder


def test_the_affinity_of_the_process_says_which_cores() -> None:
    before = os.sched_getaffinity(0)
    assert set(usable_cores()) <= before
    one = min(before)
    try:
        pin([one])
        assert usable_cores() == (one,)
    finally:
        os.sched_setaffinity(0, before)


def test_siblings_stand_next_to_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Linux numbers the second threads of all cores after the first ones.
    places = {0: (0, 0), 1: (0, 1), 2: (1, 0), 3: (1, 1), 4: (0, 0), 5: (0, 1), 6: (1, 0), 7: (1, 1)}
    root = machine(tmp_path, places)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(places))
    assert usable_cores(root) == (0, 4, 1, 5, 2, 6, 3, 7)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 5, 7})
    assert usable_cores(root) == (1, 5, 2, 7)


@pytest.mark.parametrize(("cpu_max", "count"), [("250000 100000", 2), ("100000 100000", 1), ("9 1", 4)])
def test_the_control_group_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_max: str, count: int
) -> None:
    root = machine(tmp_path, {core: (0, core) for core in range(4)}, cpu_max)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert usable_cores(root) == tuple(range(count))


def test_less_than_a_core_is_no_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path, {0: (0, 0)}, "50000 100000")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(RappError, match=r"allows 0\.5 cores"):
        usable_cores(root)


@settings(deadline=None)
@given(n_cores=st.integers(1, 256), data=st.data())
def test_a_share_is_a_whole_number_of_cores(n_cores: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, n_cores))
    exact = 100 * count / n_cores
    for written in (exact, round(exact, 1), round(exact, 3)):
        if 0 < written <= 100:
            assert cores_of_share(written, n_cores) == count
            assert why_no_share(written, n_cores) is None


@settings(deadline=None)
@given(n_cores=st.integers(1, 64), sm_pct=st.floats(0.01, 100))
def test_another_share_names_the_nearest_that_are_partitions(n_cores: int, sm_pct: float) -> None:
    reason = why_no_share(sm_pct, n_cores)
    whole = [100 * count / n_cores for count in range(1, n_cores + 1)]
    assert (reason is None) == any(abs(sm_pct - share) <= SLACK_PCT for share in whole)
    if reason is not None:
        named = [float(word) for word in reason.rpartition("nearest ")[2].replace("%", "").split(" and ")]
        assert all(cores_of_share(share, n_cores) is not None for share in named)
        nearest = min(whole, key=lambda share: abs(share - sm_pct))
        assert min(abs(share - nearest) for share in named) <= SLACK_PCT


@pytest.mark.parametrize(
    ("sm_pct", "n_cores", "nearest"),
    [(25, 2, "50 %"), (60, 2, "50 % and 100 %"), (50, 3, "33.3 % and 66.7 %"), (5, 6, "16.7 %")],
)
def test_the_reason_in_words(sm_pct: float, n_cores: int, nearest: str) -> None:
    reason = why_no_share(sm_pct, n_cores)
    assert reason is not None
    assert reason.startswith(f"{sm_pct} % of {n_cores} cores is ")
    assert reason.endswith(f"nearest {nearest}")


@pytest.mark.parametrize("sm_pct", [0.0, -1.0, 100.1, float("nan")])
def test_what_is_no_share_at_all(sm_pct: float) -> None:
    assert cores_of_share(sm_pct, 4) is None
    assert "it must lie in (0, 100]" in (why_no_share(sm_pct, 4) or "")


def test_pinning_holds_for_threads_that_start_later_and_fails_in_words() -> None:
    found: list[set[int]] = []

    def pinned() -> None:
        pin([min(os.sched_getaffinity(0))])
        inner = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
        inner.start()
        inner.join()
        with pytest.raises(RappError, match=r"cores \[100000\] cannot be had"):
            pin([100000])

    thread = threading.Thread(target=pinned)
    thread.start()
    thread.join()
    assert found == [{min(os.sched_getaffinity(0))}]
