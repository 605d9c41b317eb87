from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pdforge.recipe.models import AlphaSchedule, LearningRateSchedule
from pdforge.schedules import alpha_at, is_zero, learning_rate_factor

_alpha = TypeAdapter(AlphaSchedule).validate_python
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
