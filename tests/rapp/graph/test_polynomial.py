"""Arithmetic of whole numbers that depend on the batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rapp.graph import BatchPolynomial
from rapp.graph.polynomial import fit_affine, product, total

polynomials = st.lists(st.integers(-(10**12), 10**12), max_size=4).map(
    lambda coefficients: BatchPolynomial(tuple(coefficients))
)
batches = st.integers(1, 10**6)


@given(polynomials, polynomials, batches, st.integers(-1000, 1000))
def test_arithmetic_commutes_with_evaluation(
    a: BatchPolynomial, b: BatchPolynomial, batch: int, factor: int
) -> None:
    assert (a + b)(batch) == a(batch) + b(batch)
    assert (a * b)(batch) == a(batch) * b(batch)
    assert (a * factor)(batch) == (factor * a)(batch) == a(batch) * factor
    assert (a + factor)(batch) == (factor + a)(batch) == a(batch) + factor
    assert total([a, b, factor])(batch) == a(batch) + b(batch) + factor
    assert product([a, b, factor])(batch) == a(batch) * b(batch) * factor


@given(polynomials, polynomials)
def test_equal_functions_are_equal_objects(a: BatchPolynomial, b: BatchPolynomial) -> None:
    same_values = all(a(batch) == b(batch) for batch in range(1, 6))
    assert (a == b) == same_values  # degree 3 at most: 5 points tell
    assert BatchPolynomial((*a.coefficients, 0, 0)) == a


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sets(batches, min_size=3, max_size=5))
def test_fit_recovers_what_is_affine(offset: int, slope: int, points: set[int]) -> None:
    where = sorted(points)
    wanted = BatchPolynomial((offset, slope))
    assert fit_affine(where, [wanted(batch) for batch in where]) == wanted


def test_fit_refuses_what_is_not_affine_or_not_whole() -> None:
    assert fit_affine((1, 2, 3), (1, 4, 9)) is None
    assert fit_affine((1, 3, 7), (1, 2, 4)) is None
    assert fit_affine((4,), (9,)) == BatchPolynomial((9,))


def test_text() -> None:
    assert str(BatchPolynomial((3, 1, 2))) == "3+N+2N^2"
    assert str(BatchPolynomial()) == "0"
    assert product([]) == BatchPolynomial((1,))
