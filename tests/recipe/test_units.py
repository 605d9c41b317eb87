"""Numbers as people write them."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from pdforge.recipe.units import Count, Duration, Flag, Fraction, Real, Size

ACCEPTED = [
    (Count, "100B", 100_000_000_000),
    (Count, "12.5M", 12_500_000),
    (Count, "8_388_608", 8_388_608),
    (Count, "500k", 500_000),
    (Count, " 3 T ", 3_000_000_000_000),
    (Count, 1e9, 1_000_000_000),
    (Count, 2**63 - 1, 2**63 - 1),
    (Count, "0.001k", 1),
    (Fraction, "10%", 0.1),
    (Fraction, "0.5 %", 0.005),
    (Fraction, "1e-4", 1e-4),
    (Fraction, 1, 1.0),
    (Real, 3, 3.0),
    (Flag, True, True),
    (Size, "2GiB", 2 * 1024**3),
    (Size, "1.5 KiB", 1536),
    (Size, "500MB", 500_000_000),
    (Size, "12M", 12_000_000),
    (Size, "64kB", 64_000),
    (Size, "7B", 7),
    (Size, 4096, 4096),
    (Duration, "30m", 1800),
    (Duration, "1h30m", 5400),
    (Duration, "1.5h", 5400),
    (Duration, "1d 2h", 93_600),
    (Duration, "45s", 45),
    (Duration, 90, 90),
]
REFUSED = [
    *(
        (Count, value)
        for value in ("", "B", "-5", "1.5", "1e3B", "1.0005k", "0", 0, -1, 1.5, True, None, [], "٣", 2**63)
    ),
    *((Count, value) for value in ("9" * 5000, 10**5000, float("inf"), float("nan"), "1,000", "0x10")),
    *((Fraction, value) for value in ("%", "x%", "101%", "-1%", "nan%", "1e999999%", True, 1.1, -0.1, None)),
    *((Real, value) for value in (True, "x", None)),
    *((Size, value) for value in ("2GIB", "2gb", "-1MB", "0.0001kB", "GiB", "1e3MB", True, None, 0, "9" * 5000)),
    *((Duration, value) for value in ("30 minutes", "m", "1.5", "0m", "0.5s", "-1h", "1h-2m", "30M", True, None, 0)),
    (Duration, "1h" * 5000),
    *((Flag, value) for value in ("true", "yes", 1, 0, None)),
]


@pytest.mark.parametrize(("kind", "written", "meant"), ACCEPTED)
def test_accepted(kind, written, meant) -> None:
    value = TypeAdapter(kind).validate_python(written)
    assert value == pytest.approx(meant, rel=1e-12)
    assert type(value) is type(meant)


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_refused(number: int) -> None:
    kind, written = REFUSED[number]
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(written)
