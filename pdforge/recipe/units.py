"""Numbers as people write them: `100B`, `12.5M`, `8_388_608`, `10%`. A number means what its unit says."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_COUNT_SUFFIX = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_COUNT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kKMBGT]?)")


def parse_count(value: Any) -> Any:
    """An integer count from `100B`, `1.5M`, `8_388_608` or a number that is whole.

    Raises:
        ValueError: text that is no count, or a count that is not whole.
    """
    if isinstance(value, bool) or not isinstance(value, str | float):
        return value
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError("not a whole number")
        return int(value)
    match = _COUNT.fullmatch(value.strip())
    if match is None:
        raise ValueError("not a count; write a number such as 100B, 12.5M, 500k or 8_388_608")
    try:
        exact = Decimal(match[1].replace("_", "")) * _COUNT_SUFFIX[match[2]]
    except InvalidOperation as error:
        raise ValueError("not a count") from error
    if exact != exact.to_integral_value():
        raise ValueError("not a whole number")
    return int(exact)


def parse_fraction(value: Any) -> Any:
    """A fraction from `10%` or a number."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(Decimal(value.strip()[:-1].strip()) / 100)
        except InvalidOperation as error:
            raise ValueError("not a percentage; write 10% or 0.1") from error
    return value


Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
"""A positive count of tokens or sequences."""

Fraction = Annotated[float, BeforeValidator(parse_fraction), Field(ge=0, le=1)]
"""A number in [0, 1], or a percentage."""
