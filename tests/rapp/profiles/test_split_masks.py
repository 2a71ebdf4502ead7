"""Which rows of a table a split takes for training, validation and test."""

from __future__ import annotations

import logging
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from split_parts import COMMITTED, committed

from rapp.errors import ConfigError
from rapp.profiles import ProfileTable, Split, SplitError
from rapp.profiles.split_file import NetworkFold
from rapp.profiles.splits import point_share

NAMES = ("alexnet", "resnet18", "resnet50", "vgg11", "regnet_y_8gf", "efficientnet_b0", "maxvit_t",
         "mnasnet1_0", "densenet121", "squeezenet1_0", "convnext_tiny")  # fmt: skip


@pytest.fixture(scope="module")
def table(grid_rows) -> ProfileTable:
    rows = grid_rows(NAMES, (15, 20, 60, 100), (30, 50, 100), (1, 8))
    return ProfileTable.from_rows(rows)


def _masks(split: Split, fold: int, table: ProfileTable) -> np.ndarray:
    """(3, R) booleans; a fold without rows of a side in this small table is none to compare."""
    try:
        return np.stack(split.select(table, fold))
    except SplitError as error:
        assert "leaves no row" in str(error)
        return np.zeros((3, 0), dtype=bool)


@pytest.mark.parametrize("name", COMMITTED)
def test_masks_are_disjoint_cover_and_do_not_depend_on_the_order(table, name):
    split = committed(name)
    compared = 0
    for fold in range(len(split.folds)):
        masks = _masks(split, fold, table)
        if masks.size == 0:
            continue
        compared += 1
        assert masks.dtype == bool
        np.testing.assert_array_equal(masks.sum(axis=0), 1)
        np.testing.assert_array_equal(masks, _masks(committed(name), fold, table))
        order = np.random.default_rng(fold).permutation(len(table))
        shuffled = ProfileTable(table.arrow.take(pa.array(order)))
        np.testing.assert_array_equal(_masks(split, fold, shuffled), masks[:, order])
        half = masks[0] | masks[2]
        part = np.stack(split.select(table.where(half), fold))
        np.testing.assert_array_equal(part, masks[:, half])
    assert compared >= 3


def test_rows_of_a_network_stay_together(table):
    split = committed("unseen-network")
    fold = next(i for i, fold in enumerate(split.folds) if "vgg11" in fold.test)
    train, validation, test = split.select(table, fold)
    tested = set(split.folds[fold].test)
    for network, here, there, never in zip(table.column("network"), train, test, validation, strict=True):
        assert (here, there, never) == (network not in tested, network in tested, False)


def test_held_columns_are_whole(table):
    split = committed("held-columns")
    for fold, (column, values) in enumerate((("sm_pct", {15, 60}), ("quota_pct", {30}), ("batch", {8}))):
        train, validation, test = split.select(table, fold)
        assert set(table.column(column)[test]) == values
        assert not set(table.column(column)[train]) & values
        assert not validation.any()


def test_the_hash_rule_is_pinned():
    """Worked by hand from the docstring: another formula would move rows between train and test."""
    assert point_share(0, "resnet50", 1, 5.0, 10.0) == pytest.approx(0.438547298777, abs=1e-12)
    assert point_share(2, "vgg16", 8, 12.5, 100) == pytest.approx(0.433857696359, abs=1e-12)


def test_repetitions_of_a_point_stay_together(row, grid_rows):
    rows = grid_rows(NAMES, (15, 20, 60, 100), (30, 50, 100), (1, 8))
    again = [r | {"campaign_id": "c2", "device": "another", "quota_kind": "gpu_time"} for r in rows]
    masks = np.stack(committed("random-rows").select(ProfileTable.from_rows(rows + again), 0))
    np.testing.assert_array_equal(masks[:, : len(rows)], masks[:, len(rows) :])


@given(seed=st.integers(0, 2**31), network=st.text(max_size=9), batch=st.integers(1, 99),
       sm=st.integers(1, 100), quota=st.integers(1, 100))  # fmt: skip
def test_a_share_is_a_number_in_0_1_whatever_the_type_of_percent(seed, network, batch, sm, quota):
    share = point_share(seed, network, batch, float(sm), float(quota))
    assert 0 <= share < 1
    assert share == point_share(seed, network, batch, sm, quota)


def test_shares_are_uniform_and_seeds_independent(grid_rows):
    rows = grid_rows(NAMES, tuple(range(5, 101, 5)), tuple(range(10, 101, 10)), (1, 2, 4, 8))
    table = ProfileTable.from_rows(rows)
    split = committed("random-rows")
    tests = []
    for fold in range(3):
        train, validation, test = split.select(table, fold)
        # Binomial: 8,800 points, four standard deviations.
        for mask, fraction in ((train, 0.85), (validation, 0.10), (test, 0.05)):
            assert abs(mask.mean() - fraction) < 4 * np.sqrt(fraction * (1 - fraction) / len(table))
        tests.append(test)
    for one, other in combinations(tests, 2):
        assert (one & other).mean() < 0.05**2 * 2


def test_absent_networks_are_left_out_and_logged(table, caplog):
    split = committed("unseen-network")
    assert len(split.absent(table)) == 69 - len(NAMES)
    fold = next(i for i, fold in enumerate(split.folds) if "vgg11" in fold.test)
    with caplog.at_level(logging.INFO, logger="rapp"):
        split.select(table, fold)
    assert "58 of its networks are not in profile table: " in caplog.text
    assert committed("random-rows").absent(table) == []


def test_a_network_that_the_split_does_not_name_is_refused(table, row):
    more = ProfileTable.concat([table, ProfileTable.from_rows([row(network="vit_b_16")])])
    with pytest.raises(SplitError, match=r"does not name vit_b_16 of .*: filter the table"):
        committed("unseen-family").select(more)
    committed("random-rows").select(more)


def test_a_fold_without_test_rows_is_refused(table):
    split = committed("unseen-network")
    fold = next(i for i, fold in enumerate(split.folds) if "vgg11" not in fold.test)
    with pytest.raises(SplitError, match=f"fold {fold} leaves no row to test on in profile table"):
        split.select(table.filter(network="vgg11"), fold)
    with pytest.raises(ConfigError, match="no fold 8; it has 0 to 7"):
        split.select(table, 8)
    with pytest.raises(ConfigError, match="no fold -1"):
        split.select(table, -1)


def test_a_validation_side_by_networks(table):
    fold = {"train": list(NAMES[2:]), "validation": [NAMES[0]], "test": [NAMES[1]]}
    split = Split.from_dict({"version": 1, "name": "own", "kind": "network", "folds": [fold]})
    assert isinstance(split.folds[0], NetworkFold)
    _, validation, test = split.select(table)
    assert set(table.column("network")[validation]) == {NAMES[0]}
    assert set(table.column("network")[test]) == {NAMES[1]}
