"""Split files that are not valid or cannot be read."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from split_parts import FOLDER

from rapp.errors import ProfileError
from rapp.profiles import Split, SplitError


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
