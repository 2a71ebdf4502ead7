"""The committed splits: over which networks, and how balanced their folds are."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from split_parts import COMMITTED, FOLDER, ROOT, committed

from rapp.profiles.split_file import ColumnsFold, HashFold


def test_the_committed_files_are_what_the_script_writes():
    script = ROOT / "scripts" / "make_splits.py"
    ended = subprocess.run(
        [sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(file.stem for file in FOLDER.iterdir()) == list(COMMITTED)
    assert all(committed(name).name == name for name in COMMITTED)


@pytest.mark.parametrize("name", ["unseen-network", "unseen-family"])
def test_each_of_69_networks_is_tested_once(name):
    split = committed(name)
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
    named = set(committed("unseen-network").networks())
    assert named <= known
    assert {name for name in known - named if not name.startswith(("vit_", "swin_"))} == set()


def test_unseen_networks_are_balanced_over_families():
    families = committed("unseen-family").families
    family_of = {network: family for family, networks in families.items() for network in networks}
    for fold in committed("unseen-network").folds:
        assert len(fold.test) in (8, 9)
        counts = Counter(family_of[network] for network in fold.test)
        for family, networks in families.items():
            assert counts[family] <= -(-len(networks) // 8) + 1, (family, fold.test)


def test_no_family_is_on_two_sides():
    split = committed("unseen-family")
    assert len(split.families) == 13
    family_of = {network: family for family, networks in split.families.items() for network in networks}
    for fold in split.folds:
        assert not {family_of[n] for n in fold.train} & {family_of[n] for n in fold.test}
    assert family_of["resnet101"] == family_of["wide_resnet101_2"] == family_of["resnext101_64x4d"]
    assert family_of["efficientnet_b0"] == family_of["efficientnet_v2_s"]


def test_rules_of_the_row_splits():
    random = committed("random-rows").folds
    assert [fold.seed for fold in random if isinstance(fold, HashFold)] == [0, 1, 2]
    held = committed("held-columns").folds
    assert [(fold.column, fold.test) for fold in held if isinstance(fold, ColumnsFold)] == [
        ("sm_pct", [15, 35, 60, 85]),
        ("quota_pct", [30, 70]),
        ("batch", [8]),
    ]


def test_folds_are_balanced_on_the_public_set(v100):
    networks = v100.column("network")
    by_network, by_family = (
        [len(set(networks[committed(name).select(v100, fold)[2]])) for fold in range(8)]
        for name in ("unseen-network", "unseen-family")
    )
    assert sorted(by_network) == [7, 7, 7, 7, 7, 7, 7, 8]
    assert sorted(by_family) == [4, 5, 5, 6, 7, 8, 9, 13]
