"""The band of noise against tables, against textbook formulas, and against repeated draws."""

from __future__ import annotations

import math
import random
from statistics import fmean, variance

import pytest

from pdforge.report.compare import Comparison
from pdforge.report.model import HELDOUT
from pdforge.report.noise import pool, t_quantile
from tests.report.made import results, run


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (7, 2.365), (10, 2.228), (29, 2.045), (30, 2.042), (1000, 1.962)],
)
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-4)


def test_the_deviation_is_pooled_over_groups() -> None:
    groups = [[1.0, 1.2, 1.4], [5.0, 5.1], [9.0]]
    noise = pool(groups)
    assert noise is not None
    assert noise.freedom == 3
    assert noise.deviation**2 == pytest.approx((2 * variance(groups[0]) + variance(groups[1])) / 3)
    assert noise.band(3, 2) == pytest.approx(3.1824 * noise.deviation * math.sqrt(1 / 3 + 1 / 2), rel=1e-4)
    assert pool([[1.0], [2.0]]) is None


def test_one_difference_of_no_effect_in_twenty_lies_outside() -> None:
    draws = random.Random(0)
    outside = 0
    for _ in range(2000):
        groups = [[draws.gauss(0, 0.3) for _ in range(3)] for _ in range(3)]
        noise = pool(groups)
        assert noise is not None
        outside += abs(fmean(groups[0]) - fmean(groups[1])) > noise.band(3, 3)
    assert 0.035 < outside / 2000 < 0.065


def test_a_difference_inside_the_noise_is_marked() -> None:
    seeds = [run("lm", seed, 3.0 + 0.01 * seed) for seed in range(3)]
    near = [run("near", seed, 3.005 + 0.01 * seed) for seed in range(3)]
    far = [run("far", seed, 2.0 + 0.01 * seed) for seed in range(3)]
    comparison = Comparison(results(*seeds, *near, *far))
    _, one, two = comparison.groups
    inside, outside = comparison.difference(one, HELDOUT), comparison.difference(two, HELDOUT)
    assert inside is not None
    assert outside is not None
    assert (inside.is_noise, outside.is_noise) == (True, False)
    assert inside.band == outside.band == pytest.approx(t_quantile(6) * 0.01 * math.sqrt(2 / 3))
    assert inside.source == "seeds"


def test_noise_is_that_of_students_of_one_size_and_budget() -> None:
    small = [run("lm", seed, 3.0 + 0.1 * seed) for seed in range(2)]
    large = [run("big", seed, 2.0 + 0.01 * seed, parameters=9000) for seed in range(2)]
    comparison = Comparison(results(*small, *large, run("alone", 0, 2.5, tokens=77)))
    lm, big, alone = comparison.groups
    assert comparison.noise(lm, HELDOUT).deviation == pytest.approx(math.sqrt(0.005))  # type: ignore[union-attr]
    assert comparison.noise(big, HELDOUT).deviation == pytest.approx(math.sqrt(0.00005))  # type: ignore[union-attr]
    assert comparison.noise(alone, HELDOUT) is None


def test_without_seeds_the_questions_of_a_task_give_the_band() -> None:
    comparison = Comparison(
        results(run("lm", 0, 3.0, tasks={"piqa": (70.0, 1.0)}), run("pd", 0, 2.9, tasks={"piqa": (72.0, 1.0)}))
    )
    difference = comparison.difference(comparison.groups[1], "piqa")
    assert difference is not None
    assert difference.source == "questions"
    assert difference.band == pytest.approx(1.96 * math.sqrt(2), abs=1e-3)
    assert difference.is_noise
