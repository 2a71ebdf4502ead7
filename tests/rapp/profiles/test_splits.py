from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.errors import ConfigError, ProfileError
from rapp.profiles import ProfileTable, Split, SplitError
from rapp.profiles.split_file import ColumnsFold, HashFold, NetworkFold
from rapp.profiles.splits import point_share

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "datasets" / "splits"
COMMITTED = ("held-columns", "random-rows", "unseen-family", "unseen-network")


def _committed(name: str) -> Split:
    return Split.load(FOLDER / f"{name}.json")


def test_the_committed_files_are_what_the_script_writes():
    script = ROOT / "scripts" / "make_splits.py"
    ended = subprocess.run(
        [sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(file.stem for file in FOLDER.iterdir()) == list(COMMITTED)
    assert all(_committed(name).name == name for name in COMMITTED)


@pytest.mark.parametrize("name", ["unseen-network", "unseen-family"])
def test_each_of_69_networks_is_tested_once(name):
    split = _committed(name)
    assert len(split.folds) == 8
    tested = [network for fold in split.folds for network in fold.test]
    assert len(tested) == 69
    assert sorted(tested) == split.networks()
    for fold in split.folds:
        assert not set(fold.train) & set(fold.test)
        assert len(fold.train) + len(fold.test) == 69


def test_the_networks_are_torchvision_s_classifiers():
    """All of them but the transformers (ViT, Swin), which the public set does not have."""
    models = pytest.importorskip("torchvision.models")
    known = set(models.list_models(module=models))
    named = set(_committed("unseen-network").networks())
    assert named <= known
    assert {name for name in known - named if not name.startswith(("vit_", "swin_"))} == set()


def test_unseen_networks_are_balanced_over_families():
    families = _committed("unseen-family").families
    family_of = {network: family for family, networks in families.items() for network in networks}
    for fold in _committed("unseen-network").folds:
        assert len(fold.test) in (8, 9)
        counts = Counter(family_of[network] for network in fold.test)
        for family, networks in families.items():
            assert counts[family] <= -(-len(networks) // 8) + 1, (family, fold.test)


def test_no_family_is_on_two_sides():
    split = _committed("unseen-family")
    assert len(split.families) == 13
    family_of = {network: family for family, networks in split.families.items() for network in networks}
    for fold in split.folds:
        assert not {family_of[n] for n in fold.train} & {family_of[n] for n in fold.test}
    assert family_of["resnet101"] == family_of["wide_resnet101_2"] == family_of["resnext101_64x4d"]
    assert family_of["efficientnet_b0"] == family_of["efficientnet_v2_s"]


def test_rules_of_the_row_splits():
    random = _committed("random-rows").folds
    assert [fold.seed for fold in random if isinstance(fold, HashFold)] == [0, 1, 2]
    held = _committed("held-columns").folds
    assert [(fold.column, fold.test) for fold in held if isinstance(fold, ColumnsFold)] == [
        ("sm_pct", [15, 35, 60, 85]),
        ("quota_pct", [30, 70]),
        ("batch", [8]),
    ]


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
    split = _committed(name)
    compared = 0
    for fold in range(len(split.folds)):
        masks = _masks(split, fold, table)
        if masks.size == 0:
            continue
        compared += 1
        assert masks.dtype == bool
        np.testing.assert_array_equal(masks.sum(axis=0), 1)
        np.testing.assert_array_equal(masks, _masks(_committed(name), fold, table))
        order = np.random.default_rng(fold).permutation(len(table))
        shuffled = ProfileTable(table.arrow.take(pa.array(order)))
        np.testing.assert_array_equal(_masks(split, fold, shuffled), masks[:, order])
        half = masks[0] | masks[2]
        part = np.stack(split.select(table.where(half), fold))
        np.testing.assert_array_equal(part, masks[:, half])
    assert compared >= 3


def test_rows_of_a_network_stay_together(table):
    split = _committed("unseen-network")
    fold = next(i for i, fold in enumerate(split.folds) if "vgg11" in fold.test)
    train, validation, test = split.select(table, fold)
    tested = set(split.folds[fold].test)
    for network, here, there, never in zip(table.column("network"), train, test, validation, strict=True):
        assert (here, there, never) == (network not in tested, network in tested, False)


def test_held_columns_are_whole(table):
    split = _committed("held-columns")
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
    masks = np.stack(_committed("random-rows").select(ProfileTable.from_rows(rows + again), 0))
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
    split = _committed("random-rows")
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
    split = _committed("unseen-network")
    assert len(split.absent(table)) == 69 - len(NAMES)
    fold = next(i for i, fold in enumerate(split.folds) if "vgg11" in fold.test)
    with caplog.at_level(logging.INFO, logger="rapp"):
        split.select(table, fold)
    assert "58 of its networks are not in profile table: " in caplog.text
    assert _committed("random-rows").absent(table) == []


def test_a_network_that_the_split_does_not_name_is_refused(table, row):
    more = ProfileTable.concat([table, ProfileTable.from_rows([row(network="vit_b_16")])])
    with pytest.raises(SplitError, match=r"does not name vit_b_16 of .*: filter the table"):
        _committed("unseen-family").select(more)
    _committed("random-rows").select(more)


def test_a_fold_without_test_rows_is_refused(table):
    split = _committed("unseen-network")
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


def _set(path: str, value: object):
    def change(content):
        at = content
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            at = at[part]
        at[last] = value
        return content

    return change


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("unseen-network", _set("version", 2), "split format version 2; this rapp reads 1: upgrade it"),
        ("unseen-network", _set("version", 0), "version: Input should be 1"),
        ("unseen-network", _set("kind", "model"), "Input tag 'model' found"),
        ("unseen-network", _set("extra", 1), "extra: Extra inputs are not permitted"),
        ("unseen-network", _set("folds", []), "folds: List should have at least 1 item"),
        ("unseen-network", _set("folds.1.test", []), "folds.1.test: List should have at least 1 item"),
        ("unseen-network", _set("folds.1.test.0", "alexnet"), "folds.1: alexnet named more than once"),
        ("unseen-network", _set("folds.1.test.0", "new"), "fold 1 and fold 0 are not over the same"),
        ("unseen-network", _set("folds.1.test.0", 7), "folds.1.test.0: Input should be a valid string"),
        ("unseen-family", _set("families.vgg.0", "alexnet"), "a network is in two families"),
        ("unseen-family", _set("families.vgg.0", "vgg12"), "fold 0 and the families are not over"),
        ("random-rows", _set("folds.0.fractions.test", 0.06), "folds.0.fractions: the fractions add up"),
        ("random-rows", _set("folds.0.fractions.test", 0.0), "folds.0.fractions.test: Input should be"),
        ("random-rows", _set("folds.0.rule", "dice"), "folds.0: Input tag 'dice' found"),
        ("held-columns", _set("folds.0.column", "latency_ms"), "folds.0.column: Input should be 'sm_pct'"),
        ("held-columns", _set("folds.0.test", [15.0, 15.0]), "folds.0: a value is named more than once"),
    ],
)  # fmt: skip
def test_a_split_file_that_is_not_valid(tmp_path, name, change, reason):
    content = change(json.loads((FOLDER / f"{name}.json").read_text()))
    file = tmp_path / "split.json"
    file.write_text(json.dumps(content))
    with pytest.raises(SplitError) as error:
        Split.load(file)
    assert isinstance(error.value, ProfileError)
    assert str(error.value).startswith(f"{file}: {reason}")
    assert "\n" not in str(error.value)


def test_a_network_tested_twice_or_a_family_torn():
    content = json.loads((FOLDER / "unseen-network.json").read_text())
    twice = copy.deepcopy(content)
    twice["folds"][1] = twice["folds"][0]
    with pytest.raises(SplitError, match="tested in fold 0 and in fold 1"):
        Split.from_dict(twice)
    families = json.loads((FOLDER / "unseen-family.json").read_text())["families"]
    with pytest.raises(SplitError, match=r"fold 0 has the family .* on two sides"):
        Split.from_dict(content | {"kind": "family", "families": families})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read: No such file"),
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[]", "should be a valid dictionary"),
    ],
)
def test_a_split_file_that_cannot_be_read(tmp_path, text, reason):
    file = tmp_path / "split.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SplitError, match=reason):
        Split.load(file)


def test_folds_are_balanced_on_the_public_set(v100):
    networks = v100.column("network")
    by_network, by_family = (
        [len(set(networks[_committed(name).select(v100, fold)[2]])) for fold in range(8)]
        for name in ("unseen-network", "unseen-family")
    )
    assert sorted(by_network) == [7, 7, 7, 7, 7, 7, 7, 8]
    assert sorted(by_family) == [4, 5, 5, 6, 7, 8, 9, 13]
