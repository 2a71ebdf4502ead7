"""Lists of numbers as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.cli.ranges import batches, percents
from rapp.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("50", (50,)),
        ("25, 50,100", (25, 50, 100)),
        ("5:100:5", tuple(range(5, 101, 5))),
        ("5:9", (5, 6, 7, 8, 9)),
        ("10:35:10", (10, 20, 30)),
        ("0.1:0.3:0.1", (0.1, 0.2, 0.3)),
        ("100,10:20:10,10", (100, 10, 20)),
        ("33.3:33.3:1", (33.3,)),
    ],
)
def test_lists(text, values):
    assert percents(text, "--sm") == values


@given(st.integers(1, 100), st.integers(0, 99), st.integers(1, 50))
def test_ranges_hold_both_ends_and_no_more(first, span, step):
    last = min(first + span, 100)
    assert batches(f"{first}:{last}:{step}", "--batch") == tuple(range(first, last + 1, step))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write 50"),
        ("5,,6", "write 50"),
        ("5:", "write 50"),
        ("1:2:3:4", "write 50"),
        ("five", "'five' is not a number"),
        ("nan", "'nan' is not a number"),
        ("1e999999", "is not a number"),
        ("5:100:0", "the step 0 must be above 0"),
        ("5:100:-5", "the step -5 must be above 0"),
        ("100:5:5", "ends before it starts"),
        ("0", "0 is no percentage in"),
        ("50:150:50", "150 is no percentage in"),
        ("1:100:0.0001", "more than 10,000 values"),
    ],
)
def test_what_is_no_list_of_percentages(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        percents(text, "--sm")
    assert str(caught.value).startswith(f"--sm {text}")


@pytest.mark.parametrize("text", ["0", "1.5", "-1", "1:2:0.5"])
def test_what_is_no_list_of_batches(text):
    with pytest.raises(ConfigError, match="is no batch: a whole number, 1 or more"):
        batches(text, "--batch")


def test_batches_are_integers():
    assert batches("1,2.0", "--batch") == (1, 2)
    assert all(isinstance(value, int) for value in batches("1:8", "--batch"))
