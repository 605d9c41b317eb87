"""Numbers as people write them: `100B`, `12.5M`, `8_388_608`, `10%`, `2GiB`, `30m`. A number means what its unit says.

A validator's ValueError says what would be accepted: it completes `it must be …`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import CoreSchema, core_schema

LARGEST_COUNT = 2**63 - 1
"""Counts are stored and compared as 64-bit integers."""

_LONGEST_DURATION = 60
# patterns are text: re compiles and keeps each at its first use, and most recipes need few of them
_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
_COUNT_SUFFIX = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_NUMBER = r"([0-9][0-9_]{0,30}(?:\.[0-9]{1,30})?)"
_COUNT = _NUMBER + r"\s*([kKMBGT]?)"
_SIZE_SUFFIX = {
    **{suffix: 1000**power for power, letter in enumerate("kMGT", 1) for suffix in (letter, f"{letter}B")},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    "": 1,
    "B": 1,
}
_SIZE = _NUMBER + r"\s*([kMGT]?B?|[KMGT]iB)"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = rf"(?:{_NUMBER}\s*([smhd])\s*)+"
_DURATION_PART = _NUMBER + r"\s*([smhd])"


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
    match = re.fullmatch(_COUNT, value.strip())
    if match is None:
        raise ValueError("a count such as 100B, 12.5M, 500k or 8_388_608")
    return _whole(_scaled(match[1], _COUNT_SUFFIX[match[2]]), "a whole number")


def parse_size(value: Any) -> Any:
    """Bytes from `2GiB`, `12MB`, `12M` or a whole number.

    Raises:
        ValueError: text that is no size, a truth value, or a size that is not whole or beyond 64 bits.
    """
    if not isinstance(value, str):
        return parse_count(value)
    match = re.fullmatch(_SIZE, value.strip())
    if match is None:
        raise ValueError("a size such as 2GiB, 500MB or 12_000_000")
    return _whole(_scaled(match[1], _SIZE_SUFFIX[match[2]]), "a whole number of bytes")


def parse_duration(value: Any) -> Any:
    """Seconds from `45s`, `30m`, `2h`, `1d`, `1h30m` or a whole number of seconds.

    Raises:
        ValueError: text that is no duration, a truth value, or a duration that is not whole or beyond 64 bits.
    """
    if not isinstance(value, str):
        return parse_count(value)
    text = value.strip()
    if len(text) > _LONGEST_DURATION or re.fullmatch(_DURATION, text) is None:
        raise ValueError("a duration such as 30m, 2h or 1h30m")
    total = sum(_scaled(number, _SECONDS[unit]) for number, unit in re.findall(_DURATION_PART, text))
    return _whole(Decimal(total), "a whole number of seconds")


def _scaled(number: str, factor: int) -> Decimal:
    return Decimal(number.replace("_", "")) * factor


def _whole(exact: Decimal, accepted: str) -> Any:
    if exact != exact.to_integral_value():
        raise ValueError(accepted)
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
    if not re.fullmatch(_NAME, value):
        raise ValueError("a name: lower-case letters, digits, `.`, `_` and `-`, at most 64 of them")
    return value


class _Read:
    """Annotation of a number: how it is read, then its type with its bounds.

    `BeforeValidator` and `Field` say the same, and pydantic works them out again for each of a hundred fields.
    """

    def __init__(self, read: Callable[[Any], Any], number: CoreSchema) -> None:
        self.schema = core_schema.no_info_before_validator_function(read, number)

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> CoreSchema:
        return self.schema.copy()


Count = Annotated[int, _Read(parse_count, core_schema.int_schema(gt=0))]
"""A positive count of tokens or sequences."""

Seed = Annotated[int, _Read(parse_count, core_schema.int_schema(ge=0))]
"""A seed of a random generator."""

Size = Annotated[int, _Read(parse_size, core_schema.int_schema(gt=0))]
"""A number of bytes."""

Duration = Annotated[int, _Read(parse_duration, core_schema.int_schema(gt=0))]
"""A number of seconds."""

Fraction = Annotated[float, _Read(parse_fraction, core_schema.float_schema(ge=0, le=1, allow_inf_nan=False))]
"""A number in [0, 1], or a percentage."""

Real = Annotated[float, _Read(refuse_truth_value, core_schema.float_schema(allow_inf_nan=False))]
"""A number; never a truth value."""

Flag = Annotated[bool, Field(strict=True)]
"""`true` or `false`, and no other spelling of them."""

Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""

Name = Annotated[str, AfterValidator(check_name)]
"""The name of a recipe."""
