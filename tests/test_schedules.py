from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pdforge.recipe.models import AlphaSchedule, LearningRateSchedule, Temperature
from pdforge.schedules import alpha_at, is_zero, learning_rate_factor, temperature_at

_alpha = TypeAdapter(AlphaSchedule).validate_python
_temperature = TypeAdapter(Temperature).validate_python
_rate = TypeAdapter(LearningRateSchedule).validate_python


def _curve(schedule, total: int) -> list[float]:
    return [alpha_at(_alpha(schedule), step, total) for step in range(1, total + 1)]


def test_shapes() -> None:
    assert _curve(0.4, 3) == [0.4, 0.4, 0.4]
    assert _curve({"schedule": "linear_inc"}, 5) == [0, 0.25, 0.5, 0.75, 1]
    assert _curve({"schedule": "linear_dec"}, 5) == [1, 0.75, 0.5, 0.25, 0]
    assert _curve({"schedule": "period", "cycles": 2, "duty": 0.5}, 8) == [1, 1, 0, 0, 1, 1, 0, 0]
    assert _curve({"schedule": "cosine", "peak": 1.0}, 3) == pytest.approx([1, 0.5, 0])


def test_wsd() -> None:
    curve = _curve({"schedule": "wsd", "peak": 0.9, "warmup": 0.1, "decay": 0.2}, 100)
    assert curve[:10] == pytest.approx([0.09 * i for i in range(1, 11)])
    assert curve[9:80] == pytest.approx([0.9] * 71)
    assert curve[89] == pytest.approx(0.45)
    assert curve[-1] == pytest.approx(0)
    rest = _curve({"schedule": "wsd_beta", "peak": 0.9, "warmup": 0.1, "decay": 0.2}, 100)
    assert [1 - a for a in curve] == pytest.approx(rest)


def test_alpha_that_a_teacher_earns() -> None:
    """The peak where its loss is its last one, and half as much for every `half_at` nats above that."""
    schedule = _alpha({"schedule": "teacher_convergence", "peak": 0.8, "half_at": 0.25})
    assert [alpha_at(schedule, 3, 10, excess) for excess in (0.0, 0.25, 0.5, 0.75)] == [0.8, 0.4, 0.2, 0.1]
    assert alpha_at(schedule, 1, 10, 1e6) == 0
    with pytest.raises(ValueError, match="unknown"):
        alpha_at(schedule, 3, 10)
    assert is_zero(_alpha({"schedule": "teacher_convergence", "peak": 0}))
    with pytest.raises(ValidationError):
        _temperature({"kind": "scheduled", "high": 2, "along": {"schedule": "teacher_convergence"}})


_schedules = st.one_of(
    st.floats(0, 1),
    st.builds(
        lambda kind, peak, warmup, decay: {
            "schedule": kind,
            "peak": peak,
            "warmup": warmup,
            "decay": decay * (1 - warmup),
        },
        st.sampled_from(["wsd", "wsd_beta"]),
        st.floats(0, 1),
        st.floats(0, 1),
        st.floats(0, 1),
    ),
    st.builds(
        lambda kind, peak: {"schedule": kind, "peak": peak},
        st.sampled_from(["linear_inc", "linear_dec", "cosine", "period"]),
        st.floats(0, 1),
    ),
)


@given(schedule=_schedules, total=st.integers(1, 200))
def test_alpha_stays_in_bounds(schedule, total) -> None:
    curve = _curve(schedule, total)
    assert all(0 <= value <= 1 for value in curve)
    if is_zero(_alpha(schedule)):
        assert curve == [0] * total


@given(schedule=_schedules, total=st.integers(2, 200))
def test_alpha_is_continuous(schedule, total) -> None:
    """Between steps, no schedule but the square wave moves faster than its own slope."""
    typed = _alpha(schedule)
    curve = _curve(schedule, total)
    largest = max(abs(b - a) for a, b in pairwise(curve))
    peak = getattr(typed, "peak", 0.0)
    match typed.schedule:
        case "constant":
            slope = 0.0
        case "wsd" | "wsd_beta":
            up = min(total, round(typed.warmup * total))
            down = min(total - up, round(typed.decay * total))
            slope = peak * max(1 / up if up else 0, math.pi / 2 / down if down else 0)
        case "cosine":
            slope = peak * math.pi / 2 / (total - 1)
        case "period":
            slope = peak
        case _:
            slope = peak / (total - 1)
    assert largest <= slope + 1e-12


@given(
    warmup=st.floats(0, 1), rest=st.floats(0, 1), peak=st.floats(0.01, 1), total=st.integers(1, 300), kind=st.booleans()
)
def test_phases_of_wsd_add_up(warmup, rest, peak, total, kind) -> None:
    """Warm-up, plateau and decay cover every step once, and each has the sum that its shape gives it."""
    fields = {"schedule": "wsd_beta" if kind else "wsd", "peak": peak, "warmup": warmup, "decay": rest * (1 - warmup)}
    curve = _curve(fields, total)
    curve = [1 - a for a in curve] if kind else curve
    up = min(total, round(warmup * total))
    down = min(total - up, round(rest * (1 - warmup) * total))
    assert sum(curve[:up]) == pytest.approx(peak * (up + 1) / 2 if up else 0, abs=1e-9)
    assert curve[up : total - down] == pytest.approx([peak] * (total - up - down))
    assert sum(curve[total - down :]) == pytest.approx(peak * (down - 1) / 2 if down else 0, abs=1e-9)


@given(cycles=st.integers(1, 20), each=st.integers(1, 20), high=st.integers(0, 20), peak=st.floats(0, 1))
def test_period_is_high_for_its_duty(cycles, each, high, peak) -> None:
    high = min(high, each)
    curve = _curve({"schedule": "period", "peak": peak, "cycles": cycles, "duty": high / each}, cycles * each)
    assert sum(curve) == pytest.approx(peak * high * cycles, rel=1e-9, abs=peak * cycles + 1e-9)
    assert set(curve) <= {0.0, peak}


@given(schedule=_schedules, total=st.integers(1, 100), low=st.floats(0.1, 100), high=st.floats(0.1, 100))
def test_temperature_follows_the_same_schedules(schedule, total, low, high) -> None:
    typed = _temperature({"kind": "scheduled", "low": low, "high": high, "along": schedule})
    for step, value in enumerate(_curve(schedule, total), 1):
        got = temperature_at(typed, step, total)
        assert got == pytest.approx(low + (high - low) * value)
        assert min(low, high) - 1e-9 <= got <= max(low, high) + 1e-9


def test_temperature_of_one_value_or_of_each_position() -> None:
    assert temperature_at(_temperature(2.5), 3, 10) == 2.5
    assert temperature_at(_temperature({"kind": "adakd_h"}), 3, 10) is None


def test_a_step_outside_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="step 0"):
        alpha_at(_alpha(0.5), 0, 10)
    with pytest.raises(ValueError, match="step 11"):
        learning_rate_factor(_rate({"schedule": "wsd"}), 11, 10)


@given(
    schedule=st.sampled_from(["wsd", "cosine", "constant"]),
    warmup=st.floats(0, 1),
    floor=st.floats(0, 1),
    total=st.integers(1, 300),
)
def test_learning_rate_bounds(schedule, warmup, floor, total) -> None:
    fields = {"schedule": schedule, "warmup": warmup}
    if schedule != "constant":
        fields["floor"] = floor
    curve = [learning_rate_factor(_rate(fields), step, total) for step in range(1, total + 1)]
    assert all(0 < value <= 1 or (floor == 0 and value >= -1e-12) for value in curve)
    up = min(total, round(warmup * total))
    assert curve[:up] == pytest.approx([(i + 1) / up for i in range(up)])
