"""Policies by name."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from rapp.errors import ConfigError
from scaler.policies.fast_gshare import PUBLISHED, FastGshare
from scaler.policies.registry import NAMES, policy


def test_the_names_are_those_of_the_documents() -> None:
    assert NAMES == ("hybrid", "has-gpu", "fast-gshare", "fast-gshare-best", "whole-gpu", "static", "oracle")


@pytest.mark.parametrize("name", ["has-gpu", "fast-gshare", "fast-gshare-best", "whole-gpu"])
def test_each_name_gives_the_policy_of_that_name(name: str) -> None:
    assert policy(name).name == name


def test_fast_gshare_is_the_published_configuration_or_the_best() -> None:
    assert policy("fast-gshare") == FastGshare(PUBLISHED)
    assert policy("fast-gshare-best", reserve=0.5) == FastGshare(None, 0.5)


@pytest.mark.parametrize(
    ("wrong", "near"), [("hibrid", "hybrid"), ("has_gpu", "has-gpu"), ("orakle", "oracle")]
)
def test_an_unknown_name_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"no policy '{wrong}' \(near: {near}\)"):
        policy(wrong)


def test_a_name_that_is_near_none_names_them_all() -> None:
    with pytest.raises(ConfigError, match=r"^no policy 'zzz': there are hybrid, has-gpu"):
        policy("zzz")


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"policy fast-gshare-best: no option 'reserv' \(near: reserve\)"):
        policy("fast-gshare-best", reserv=0.5)
    # What the name stands for is no option of it.
    with pytest.raises(ConfigError, match="no option 'config'"):
        policy("fast-gshare-best", config=PUBLISHED)


def test_a_policy_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys; import scaler.policies.registry;"
        "print([m for m in sys.modules if m.startswith('scaler.policies.')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "has_gpu" not in shown
    assert "registry" in shown


@pytest.mark.parametrize("name", ["hybrid", "static", "oracle"])
def test_a_listed_policy_is_there(name: str) -> None:
    if find_spec(f"scaler.policies.{name}") is None:
        pytest.skip("not written yet")
    try:
        assert policy(name).name == name
    except TypeError:
        pytest.skip("needs options")
