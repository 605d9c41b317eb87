"""Numbers as people read them (counts, bytes, times), and what they may have meant by a word."""

from __future__ import annotations

import time
from collections.abc import Iterable

UNKNOWN = "unknown"


def count(number: float | None) -> str:
    """A count in the units of a recipe: `1.87B`, `600k`."""
    return _scaled(number, (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)))


def size(number: float | None) -> str:
    """Bytes, decimal: `3.1 MB`."""
    return _scaled(number, ((" PB", 1e15), (" TB", 1e12), (" GB", 1e9), (" MB", 1e6), (" kB", 1e3)), " B")


def duration(seconds: float | None) -> str:
    """Seconds: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds is None:
        return UNKNOWN
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` is most likely a misspelling of; None where none is close."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    return next(iter(get_close_matches(word, list(known), n=1)), None)


def _scaled(number: float | None, units: tuple[tuple[str, float], ...], ones: str = "") -> str:
    """The number in the largest unit that leaves at least 1 of it, with three figures."""
    if number is None:
        return UNKNOWN
    for unit, factor in units:
        # 999.5 rounds to 1000 of a unit: the next larger one says it shorter
        if number >= 0.9995 * factor:
            value = number / factor
            return f"{value:.3g}{unit}" if value < 999.5 else f"{value:,.0f}{unit}"
    return f"{number:,.0f}{ones}"


def moment(seconds: float) -> str:
    """Unix seconds as local time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
