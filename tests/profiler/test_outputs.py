from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.outputs import TOLERANCES, disagreement

REFERENCE = np.linspace(-4.0, 4.0, 101)


@pytest.mark.parametrize("dtype", sorted(TOLERANCES))
def test_the_tolerance_is_of_the_range_of_the_output(dtype: str) -> None:
    reference = REFERENCE.astype(dtype)
    off = 4.0 * TOLERANCES[dtype]
    close, far = reference.copy(), reference.copy()
    close[50] += np.asarray(0.9 * off, dtype)
    far[50] += np.asarray(1.2 * off, dtype)
    assert disagreement([close], [reference]) is None
    assert f"more than {TOLERANCES[dtype]:g}" in str(disagreement([far], [reference]))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_equal_outputs_agree(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    assert disagreement([array], [array.copy()]) is None


@pytest.mark.parametrize(
    ("ours", "reference", "told"),
    [
        ([], [np.zeros(2)], "0 outputs instead of 1"),
        ([np.zeros(2)], [np.zeros(3)], r"output 0 is float64\[2\] instead of float64\[3\]"),
        ([np.zeros(2, np.float32)], [np.zeros(2)], r"float32\[2\] instead of float64\[2\]"),
        ([np.array([1, 2])], [np.array([1, 3])], "1 of 2 values of output 0 differ"),
        ([np.array([True])], [np.array([False])], "1 of 1 values"),
        ([np.array([np.nan, 1.0])], [np.array([1.0, 1.0])], "differs by inf"),
        ([np.array([1.0, 1.0])], [np.array([np.nan, 1.0])], "differs by inf"),
        ([np.array([np.inf, 1.0])], [np.array([-np.inf, 1.0])], "differs by inf"),
        ([np.array([1e-9])], [np.array([0.0])], "differs by inf"),
    ],
)
def test_what_differs_is_told(ours: list[np.ndarray], reference: list[np.ndarray], told: str) -> None:
    import re

    assert re.search(told, str(disagreement(ours, reference)))


def test_the_same_nan_and_infinity_agree() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 2.0])
    assert disagreement([odd, np.array([])], [odd.copy(), np.array([])]) is None
    assert disagreement([np.array(["a"])], [np.array(["a"])]) is None
