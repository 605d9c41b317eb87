"""Numbers as people write them: `100B`, `12.5M`, `8_388_608`, `10%`. A number means what its unit says.

A validator's ValueError says what would be accepted: it completes `it must be …`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

LARGEST_COUNT = 2**63 - 1
"""Counts are stored and compared as 64-bit integers."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_COUNT_SUFFIX = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_COUNT = re.compile(r"([0-9][0-9_]{0,30}(?:\.[0-9]{1,30})?)\s*([kKMBGT]?)")


def parse_count(value: Any) -> Any:
    """An integer count from `100B`, `1.5M`, `8_388_608` or a number that is whole.

    Raises:
        ValueError: text that is no count, a truth value, or a count that is not whole or beyond 64 bits.
    """
    if isinstance(value, bool):
        raise ValueError("a whole number")
    if isinstance(value, int):
        if value > LARGEST_COUNT:
            raise ValueError(f"at most {LARGEST_COUNT}")
        return value
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError("a whole number")
        return parse_count(int(value))
    if not isinstance(value, str):
        return value
    match = _COUNT.fullmatch(value.strip())
    if match is None:
        raise ValueError("a count such as 100B, 12.5M, 500k or 8_388_608")
    exact = Decimal(match[1].replace("_", "")) * _COUNT_SUFFIX[match[2]]
    if exact != exact.to_integral_value():
        raise ValueError("a whole number")
    return parse_count(int(exact))


def parse_fraction(value: Any) -> Any:
    """A fraction from `10%` or a number.

    Raises:
        ValueError: text that ends in `%` and is no percentage, or a truth value.
    """
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(Decimal(value.strip()[:-1].strip()) / 100)
        except ArithmeticError as error:
            raise ValueError("a fraction such as 0.1, or a percentage such as 10%") from error
    return refuse_truth_value(value)


def refuse_truth_value(value: Any) -> Any:
    """`value` unless it is true or false, which Python would take for 1 and 0.

    Raises:
        ValueError: it is.
    """
    if isinstance(value, bool):
        raise ValueError("a number")
    return value


def check_name(value: str) -> str:
    """`value` if it may name a recipe or a variant, and so a directory.

    Raises:
        ValueError: it may not.
    """
    if not _NAME.fullmatch(value):
        raise ValueError("a name: lower-case letters, digits, `.`, `_` and `-`, at most 64 of them")
    return value


Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
"""A positive count of tokens or sequences."""

Seed = Annotated[int, BeforeValidator(parse_count), Field(ge=0)]
"""A seed of a random generator."""

Fraction = Annotated[float, BeforeValidator(parse_fraction), Field(ge=0, le=1)]
"""A number in [0, 1], or a percentage."""

Real = Annotated[float, BeforeValidator(refuse_truth_value)]
"""A number; never a truth value."""

Flag = Annotated[bool, Field(strict=True)]
"""`true` or `false`, and no other spelling of them."""

Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""

Name = Annotated[str, AfterValidator(check_name)]
"""The name of a recipe."""
