"""The laws of `Pool`: nothing overcommits by `add` and `resize`, and what was added can be taken away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.gpu import Gpu, Need
from scaler.packing import TOLERANCE, PackingError, Pool

SHARES = st.sampled_from([5.0, 10.0, 20.0, 30.0, 33.3, 50.0, 70.0, 100.0])
NEEDS = st.builds(Need, SHARES, SHARES, st.floats(0, 9000), st.floats(0, 3))
# Each operation: kind, which instance, GPU, row, need.
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "find", "remove", "resize"]),
        st.integers(0, 9),
        st.integers(0, 3),
        st.integers(0, 4),
        NEEDS,
    ),
    max_size=40,
)
quick = settings(deadline=None, max_examples=150)


def pool(gpus: int = 3) -> Pool:
    return Pool(Gpu(f"g{number}", 16_000.0, 4.0) for number in range(gpus))


def run(there: Pool, operations: Sequence[tuple[str, int, int, int, Need]]) -> None:
    """Whatever is refused is left out."""
    for kind, number, gpu, row, need in operations:
        id_ = f"i{number}"
        try:
            if kind == "add":
                there.add(id_, f"g{gpu}", row, need)
            elif kind == "find":
                place = there.find(need)
                if place is not None and there.where(id_) is None:
                    there.add(id_, *place, need)
            elif kind == "remove":
                there.remove(id_)
            else:
                there.resize(id_, need)
        except PackingError:
            pass


def content(there: Pool) -> dict[str, dict[int, tuple[float, dict[str, Need]]]]:
    return {
        id_: {index: (row.sm_pct, dict(row.needs)) for index, row in gpu.rows.items()}
        for id_, gpu in there.gpus.items()
    }


@given(operations=OPERATIONS)
@quick
def test_whatever_is_added_and_resized_nothing_is_overcommitted(operations: list) -> None:
    there = pool()
    run(there, operations)
    assert there.faults() == []
    # Counted anew, without the pool's own sums.
    for gpu in there.gpus.values():
        needs = [need for row in gpu.rows.values() for need in row.needs.values()]
        assert sum(row.sm_pct for row in gpu.rows.values()) <= 100 + TOLERANCE
        assert sum(need.memory_mib for need in needs) <= gpu.memory_mib + TOLERANCE
        assert sum(need.host_cores for need in needs) <= gpu.host_cores + TOLERANCE
        for row in gpu.rows.values():
            assert row.needs, "a row that is empty is none"
            assert sum(need.quota_pct for need in row.needs.values()) <= 100 + TOLERANCE
            assert {need.sm_pct for need in row.needs.values()} == {row.sm_pct}


@given(operations=OPERATIONS)
@quick
def test_sums_are_those_of_what_is_there_after_any_change_and_in_a_copy(operations: list) -> None:
    there = pool()
    for number in range(len(operations)):
        run(there, operations[number : number + 1])
        copied = there.copy()
        for gpu in (*there.gpus.values(), *copied.gpus.values()):
            needs = [need for row in gpu.rows.values() for need in row.needs.values()]
            rows = [100 - sum(need.quota_pct for need in row.needs.values()) for row in gpu.rows.values()]
            assert gpu.free_sm_pct == 100 - sum(row.sm_pct for row in gpu.rows.values())
            assert gpu.free_memory_mib == gpu.memory_mib - sum(need.memory_mib for need in needs)
            assert gpu.free_host_cores == gpu.host_cores - sum(need.host_cores for need in needs)
            assert gpu.gpu_share == sum(need.sm_pct * need.quota_pct for need in needs) / 1e4
            assert [row.free_quota_pct for row in gpu.rows.values()] == rows
            assert gpu.most_free_quota_pct == max(rows, default=0)
    before = content(there)
    run(copied := there.copy(), operations)
    assert content(there) == before, "a copy is changed apart"
    assert copied is not there


@given(operations=OPERATIONS, need=NEEDS)
@quick
def test_what_is_found_fits_and_if_nothing_is_found_nothing_fits(operations: list, need: Need) -> None:
    there = pool()
    run(there, operations)
    place = there.find(need)
    fitting = [
        (gpu, row) for gpu in there.gpus for row in range(12) if there.why_not("new", gpu, row, need) is None
    ]
    assert (place is None) == (not fitting)
    assert place is None or place in fitting


@given(operations=OPERATIONS, need=NEEDS)
@quick
def test_a_row_of_the_same_partition_comes_before_a_new_one(operations: list, need: Need) -> None:
    there = pool()
    run(there, operations)
    place = there.find(need)
    joined = [
        row.free_quota_pct
        for id_, gpu in there.gpus.items()
        for index, row in gpu.rows.items()
        if there.why_not("new", id_, index, need) is None
    ]
    if joined:
        assert place is not None
        # The one with the least to spare.
        assert there.gpus[place[0]].rows[place[1]].free_quota_pct == pytest.approx(min(joined))


@given(operations=OPERATIONS, need=NEEDS)
@quick
def test_adding_and_removing_leaves_the_pool_as_it_was(operations: list, need: Need) -> None:
    there = pool()
    run(there, operations)
    before = content(there)
    place = there.find(need)
    if place is not None:
        there.add("new", *place, need)
        assert there.where("new") == place
        assert there.remove("new") == need
    assert content(there) == before
    assert there.where("new") is None


@given(operations=OPERATIONS, later=OPERATIONS)
@quick
def test_a_copy_is_not_changed_with_the_original(operations: list, later: list) -> None:
    there = pool()
    run(there, operations)
    copy = there.copy()
    before = content(copy)
    run(there, later)
    assert content(copy) == before


@given(operations=OPERATIONS, number=st.integers(0, 9), need=NEEDS)
@quick
def test_a_resize_that_does_not_fit_changes_nothing(operations: list, number: int, need: Need) -> None:
    there = pool()
    run(there, operations)
    before, id_ = content(there), f"i{number}"
    try:
        there.resize(id_, need)
    except PackingError:
        assert content(there) == before
    else:
        assert there.need(id_) == need


@given(operations=OPERATIONS)
@quick
def test_the_share_set_aside_is_that_of_all_instances(operations: list) -> None:
    there = pool()
    run(there, operations)
    needs = [need for gpu in there.gpus.values() for row in gpu.rows.values() for need in row.needs.values()]
    assert there.gpu_share == pytest.approx(sum(need.sm_pct * need.quota_pct for need in needs) / 1e4)


def test_what_reality_has_is_taken_and_shown_as_a_fault() -> None:
    there = pool(1)
    for number in range(2):
        there.force(f"i{number}", "g0", 0, Need(60, 70, 9000, 2.5))
    there.force("i2", "g0", 1, Need(60, 10))
    assert {(row, what) for _, row, what in there.faults()} == {
        (0, "quota"), (None, "SM"), (None, "memory"), (None, "host cores"),
    }  # fmt: skip
    assert there.find(Need(60, 1)) is None
    assert there.room_to_grow("i0") == 0


@pytest.mark.parametrize(
    ("need", "row", "says"),
    [
        (Need(40, 50), 0, "the row has SM 50 %"),
        (Need(50, 70), 0, "quota 70 %, but 60 % is free"),
        (Need(60, 10), 1, "SM 60 %, but 50 % is free"),
        (Need(50, 10, 17_000), 1, "MiB is free"),
        (Need(50, 10, 0, 5), 1, "host cores"),
    ],
)
def test_a_refusal_says_why(need: Need, row: int, says: str) -> None:
    there = pool(1)
    there.add("i0", "g0", 0, Need(50, 40))
    with pytest.raises(PackingError, match=says):
        there.add("i1", "g0", row, need)
    with pytest.raises(PackingError, match="placed already"):
        there.add("i0", "g0", 1, Need(10, 10))
    with pytest.raises(PackingError, match="no such GPU"):
        there.add("i1", "g9", 0, Need(10, 10))


def test_gpus_to_avoid_are_passed_over() -> None:
    assert pool(2).find(Need(50, 50), avoid={"g0": None}) == ("g1", 0)
    assert pool(1).find(Need(50, 50), avoid={"g0": None}) is None
