"""Arrivals that count as even: even ones within a minute, Poisson ones never, none while answers are late."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.policies.hybrid_evenness import DOUBT_S, ROUGH_S, start, updated

KNOWN_S = 60


def seen(
    counts: Iterable[float], memory: Any = None, begin_s: float = 0.0, **keys: bool
) -> list[dict[str, Any]]:
    """The memories after each of some ticks of 1 s."""
    found = [start() if memory is None else memory]
    for second, count in enumerate(counts, 1):
        found.append(updated(found[-1], float(count), 1.0, begin_s + second, **keys))
    return found[1:]


@given(rps=st.floats(3.0, 1000.0))
@settings(deadline=None, max_examples=30)
def test_even_arrivals_are_known_within_a_minute(rps: float) -> None:
    counts = np.diff(np.floor(rps * np.arange(KNOWN_S + 1)))
    assert seen(counts)[-1]["even"]


@pytest.mark.parametrize("rps", [1.0, 7.0, 40.0, 500.0])
def test_poisson_arrivals_never_count_as_even(rps: float) -> None:
    counts = np.random.default_rng(int(rps)).poisson(rps, 5000)
    assert not any(memory["even"] for memory in seen(counts))


def test_steps_of_the_load_are_none_of_the_process() -> None:
    counts = ([40.0] * 10 + [120.0] * 10) * 6
    assert all(memory["even"] for memory in seen(counts)[KNOWN_S:])


def test_arrivals_that_become_uneven_count_no_more_within_a_minute() -> None:
    even = seen([50.0] * 100)[-1]
    assert not seen(np.random.default_rng(0).poisson(50, KNOWN_S), even, 100.0)[-1]["even"]


def test_a_tick_that_was_not_counted_says_nothing() -> None:
    even = seen([50.0] * 100)[-1]
    blind = updated(even, None, 1.0, 101.0)
    assert blind["even"]
    # The next count has none before it to be compared with.
    assert updated(blind, 90.0, 1.0, 102.0)["dispersion"] == even["dispersion"]


def test_answers_that_are_late_without_a_reason_are_believed_more_than_counts() -> None:
    even = seen([50.0] * 100)[-1]
    late = updated(even, 50.0, 1.0, 101.0, late=True)
    after = seen([50.0] * int(DOUBT_S + 1), late, 101.0)
    assert not late["even"]
    assert not any(memory["even"] for memory in after[: int(DOUBT_S) - 1])
    assert after[-1]["even"]
    # A backlog meanwhile does not shorten that.
    again = updated(after[100], 50.0, 1.0, 202.0, rough=True)
    assert again["doubted_until_s"] == late["doubted_until_s"]


def test_late_answers_of_plans_for_poisson_arrivals_say_nothing_of_even_ones() -> None:
    assert seen([50.0] * 30, late=True)[-1]["doubted_until_s"] is None


def test_after_a_backlog_plans_are_those_for_poisson_arrivals_for_some_seconds() -> None:
    even = seen([50.0] * 100)[-1]
    waiting = updated(even, 50.0, 1.0, 101.0, rough=True)
    after = seen([50.0] * int(ROUGH_S + 1), waiting, 101.0)
    assert not waiting["even"]
    assert not after[int(ROUGH_S) - 2]["even"]
    assert after[-1]["even"]
