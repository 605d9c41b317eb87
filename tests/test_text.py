from __future__ import annotations

import pytest

from pdforge.text import count, duration, size


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "unknown"),
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (598_016, "598k"),
        (999_999, "1M"),
        (1_866_565_632, "1.87B"),
        (4.2e15, "4,200T"),
    ],
)
def test_count(number: float | None, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "unknown"), (12, "12 B"), (999.9, "1 kB"), (3_130_000, "3.13 MB"), (3.35e12, "3.35 TB")],
)
def test_size(number: float | None, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
