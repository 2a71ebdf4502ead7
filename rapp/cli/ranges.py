"""Lists of numbers on the command line: `50`, `1,2,4`, `5:100:5`, and mixtures of them."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from rapp.errors import ConfigError

MOST_VALUES = 10_000
"""A longer list is a slip of the keyboard, such as 1:100:0.0001."""


def percents(text: str, option: str) -> tuple[float, ...]:
    """SM partitions or quotas, %, in (0, 100], in the order given.

    Args:
        text: comma-separated numbers and ranges `first:last[:step]`; both ends belong to a range, its step is
            1 unless given. A value that occurs twice counts once.
        option: what the message of an error starts with, such as `--sm`.

    Raises:
        ConfigError: another syntax, or a value out of range.
    """
    values = _numbers(text, option)
    for value in values:
        if not 0 < value <= 100:
            raise ConfigError(f"{option} {text}: {value} is no percentage in (0, 100]")
    return tuple(float(value) for value in values)


def batches(text: str, option: str) -> tuple[int, ...]:
    """Batches, whole numbers of 1 or more, in the order given; written as for `percents`.

    Raises:
        ConfigError: another syntax, or a value that is no batch.
    """
    values = _numbers(text, option)
    for value in values:
        if value < 1 or value != int(value):
            raise ConfigError(f"{option} {text}: {value} is no batch: a whole number, 1 or more")
    return tuple(int(value) for value in values)


def _numbers(text: str, option: str) -> list[Decimal]:
    # Decimal, because 0.1 + 0.2 would miss the end of 0.1:0.3:0.1.
    values: list[Decimal] = []
    for item in text.split(","):
        values += _item(item.strip(), f"{option} {text}")
        if len(values) > MOST_VALUES:
            raise ConfigError(f"{option} {text}: more than {MOST_VALUES:,} values")
    return list(dict.fromkeys(values))


def _item(item: str, told: str) -> list[Decimal]:
    parts = item.split(":")
    if len(parts) > 3 or "" in parts:
        raise ConfigError(f"{told}: write 50, or 10,20,50, or first:last:step such as 5:100:5")
    numbers = [_number(part, told) for part in parts]
    if len(numbers) == 1:
        return numbers
    first, last = numbers[:2]
    step = numbers[2] if len(numbers) == 3 else Decimal(1)
    if step <= 0:
        raise ConfigError(f"{told}: the step {step} must be above 0")
    if last < first:
        raise ConfigError(f"{told}: the range {item} ends before it starts")
    count = int((last - first) / step) + 1
    # One value too many is enough for the caller to refuse the list.
    return [first + step * index for index in range(min(count, MOST_VALUES + 1))]


def _number(part: str, told: str) -> Decimal:
    try:
        value = Decimal(part)
    except InvalidOperation:
        value = Decimal("NaN")
    # Beyond a million nothing is meant, and int() of 1e999999 would take forever.
    if not value.is_finite() or abs(value) > 1_000_000:
        raise ConfigError(f"{told}: {part!r} is not a number; write 50, or 10,20,50, or 5:100:5")
    return value
