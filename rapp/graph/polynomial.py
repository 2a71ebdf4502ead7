"""Whole numbers as functions of the batch.

A dimension of a tensor is affine in the batch (`c0 + c1 * batch`). Element counts, multiply-adds and bytes
are products and sums of dimensions, hence polynomials, so one operator graph serves every batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPolynomial:
    """`coefficients[0] + coefficients[1] * batch + ...`, exact integers, no trailing zeros.

    Call it with a batch to get its value there.
    """

    coefficients: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.coefficients and self.coefficients[-1] == 0:
            kept = len(self.coefficients)
            while kept and self.coefficients[kept - 1] == 0:
                kept -= 1
            object.__setattr__(self, "coefficients", self.coefficients[:kept])

    def __call__(self, batch: int) -> int:
        value = 0
        for coefficient in reversed(self.coefficients):
            value = value * batch + coefficient
        return value

    def __add__(self, other: BatchPolynomial | int) -> BatchPolynomial:
        a, b = self.coefficients, as_polynomial(other).coefficients
        if len(a) < len(b):
            a, b = b, a
        return BatchPolynomial(tuple(x + y for x, y in zip(a, b, strict=False)) + a[len(b) :])

    def __mul__(self, other: BatchPolynomial | int) -> BatchPolynomial:
        if isinstance(other, int):
            return BatchPolynomial(tuple(other * x for x in self.coefficients))
        product = [0] * max(len(self.coefficients) + len(other.coefficients) - 1, 0)
        for i, x in enumerate(self.coefficients):
            for j, y in enumerate(other.coefficients):
                product[i + j] += x * y
        return BatchPolynomial(tuple(product))

    __radd__ = __add__
    __rmul__ = __mul__

    @property
    def is_constant(self) -> bool:
        """True if the batch does not matter."""
        return len(self.coefficients) <= 1

    def __str__(self) -> str:
        terms = []
        for power, coefficient in enumerate(self.coefficients):
            if coefficient == 0:
                continue
            symbol = "" if power == 0 else "N" if power == 1 else f"N^{power}"
            if symbol and coefficient == 1:
                terms.append(symbol)
            else:
                terms.append(f"{coefficient}{symbol}")
        return "+".join(terms) or "0"


Dim = BatchPolynomial
Shape = tuple[BatchPolynomial, ...]


def as_polynomial(value: BatchPolynomial | int) -> BatchPolynomial:
    """An integer is a polynomial that does not depend on the batch."""
    return BatchPolynomial((value,)) if isinstance(value, int) else value


def total(values: Iterable[BatchPolynomial | int]) -> BatchPolynomial:
    """The sum."""
    result = BatchPolynomial()
    for value in values:
        result = result + value
    return result


def product(values: Iterable[BatchPolynomial | int]) -> BatchPolynomial:
    """The product; 1 for no factors, as the element count of a scalar."""
    constant, rest = 1, BatchPolynomial((1,))
    for value in values:
        if isinstance(value, int):
            constant *= value
        elif len(value.coefficients) == 1:
            constant *= value.coefficients[0]
        else:
            rest = rest * value
    return rest * constant


def fit_affine(batches: Sequence[int], values: Sequence[int]) -> BatchPolynomial | None:
    """The affine function through all (batch, value) pairs, or None where there is none over the integers.

    Two pairs determine it; any further ones are checked. A single pair gives a constant.
    """
    if all(value == values[0] for value in values):
        return BatchPolynomial((values[0],))
    slope, remainder = divmod(values[1] - values[0], batches[1] - batches[0])
    fitted = BatchPolynomial((values[0] - slope * batches[0], slope))
    if remainder or any(fitted(batch) != value for batch, value in zip(batches, values, strict=True)):
        return None
    return fitted
