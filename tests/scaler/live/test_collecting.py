"""Garbage is collected between decisions, and as before after one that fails."""

from __future__ import annotations

import gc

import pytest

from scaler.live.collecting import without_collection


def test_nothing_is_collected_within() -> None:
    before = gc.get_stats()[0]["collections"]
    with without_collection():
        kept = [[] for _ in range(100_000)]
        assert gc.get_stats()[0]["collections"] == before
    assert len(kept) == 100_000
    assert gc.isenabled()


def test_after_an_error_it_collects_again() -> None:
    with pytest.raises(ValueError, match="no"), without_collection():
        raise ValueError("no")
    assert gc.isenabled()


def test_who_collects_by_hand_goes_on_so() -> None:
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
