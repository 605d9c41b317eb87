"""How long the stages of a plan take together, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pdforge.plan.duration import Duration
from pdforge.plan.page import Step
from pdforge.plan.profile import Profile
from pdforge.plan.wall_clock import wall_clock


def step(number: int, kind: str, seconds: float, *needs: int, done: bool = False) -> Step:
    others: dict[str, Any] = dict.fromkeys(Step._fields)
    took = Duration(seconds, seconds / 2, seconds * 2, "by hand")
    return Step(**{**others, "number": number, "kind": kind, "needs": needs, "done": done, "duration": took})


CHAIN = (step(1, "tokenize", 1), step(2, "capture", 10, 1))
TRAININGS = tuple(step(number, "train", seconds, 2) for number, seconds in ((3, 20), (4, 50), (5, 40)))


@pytest.mark.parametrize(
    ("executor", "limit", "seconds"),
    [
        ("slurm", None, 11 + 50),
        ("slurm", 3, 11 + 50),
        ("slurm", 2, 11 + 20 + 40),  # the third training waits for the first
        ("slurm", 1, 11 + 20 + 50 + 40),
        ("local", None, 11 + 20 + 50 + 40),
        ("local", 1, 11 + 20 + 50 + 40),
        ("local", 2, 11 + 20 + 40),  # the third takes the place of the first
        ("local", 3, 11 + 50),
    ],
)
def test_as_many_as_may_run_at_one_time(executor: Any, limit: int | None, seconds: float) -> None:
    profile = Profile(name="x", executor=executor, runs_at_once=limit)
    assert wall_clock((*CHAIN, *TRAININGS), profile, "seconds") == seconds
    assert wall_clock((*CHAIN, *TRAININGS), profile, "high") == 2 * seconds


@pytest.mark.parametrize("executor", ["slurm", "local"])
def test_what_is_done_takes_no_place(executor: Any) -> None:
    steps = (*CHAIN, step(3, "train", 20, 2, done=True), step(4, "train", 50, 2), step(5, "train", 40, 2))
    assert wall_clock(steps, Profile(name="x", executor=executor, runs_at_once=2), "seconds") == 11 + 50


def test_on_this_machine_other_stages_take_places_too_and_go_on_as_they_can() -> None:
    """Export of the shorter training begins while the longer one goes on; on a scheduler it needs no place."""
    steps = (step(1, "train", 20), step(2, "train", 50), step(3, "export", 5, 1), step(4, "export", 5, 2))
    times = {
        executor: [wall_clock(steps, Profile(name="x", executor=executor, runs_at_once=n), "seconds") for n in (1, 2)]
        for executor in ("local", "slurm")
    }
    assert times == {"local": [80, 55], "slurm": [75, 55]}
