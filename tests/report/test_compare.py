"""Baselines, expectations, and comparisons at equal tokens and compute."""

from __future__ import annotations

import math

import pytest

from pdforge.recipe.models import Expectation
from pdforge.report.compare import Comparison
from pdforge.report.matched import interpolate, matched, mean_curve
from pdforge.report.model import HELDOUT, Metric
from pdforge.report.tables import tables
from tests.report.made import curve, results, run


def test_each_recipe_and_size_has_its_own_baseline() -> None:
    comparison = Comparison(
        results(
            run("lm", 0, 3.0),
            run("big-lm", 0, 2.0, parameters=9, is_baseline=True),
            run("pd", 0, 2.9),
            run("big-pd", 0, 1.9, parameters=9),
            run("other", 0, 1.0, recipe="other"),
        )
    )
    names = {group.name: getattr(comparison.baseline(group), "name", None) for group in comparison.groups}
    assert names == {"lm": None, "big-lm": None, "pd": "lm", "big-pd": "big-lm", "other": None}


def test_a_baseline_is_of_the_same_data_and_of_as_many_tokens_where_there_is_one() -> None:
    comparison = Comparison(
        results(
            run("short-lm", 0, 3.0, data="text", tokens=500, is_baseline=True),
            run("long-lm", 0, 2.8, data="text", is_baseline=True),
            run("short", 0, 2.9, data="text", tokens=500),
            run("long", 0, 2.7, data="text"),
            run("between", 0, 2.8, data="text", tokens=700),
            run("elsewhere", 0, 2.7, data="other text"),
        )
    )
    names = {group.name: getattr(comparison.baseline(group), "name", None) for group in comparison.groups}
    assert names == {
        "short-lm": None,
        "long-lm": None,
        "short": "short-lm",
        "long": "long-lm",
        "between": "short-lm",
        "elsewhere": None,
    }


def test_a_recipe_without_a_baseline_takes_that_of_another_of_its_size_and_tokens() -> None:
    comparison = Comparison(
        results(
            run("lm", 0, 3.0, data="text"),
            run("alpha", 0, 2.8, recipe="weights", data="text"),
            run("longer", 0, 2.7, recipe="weights", data="text", tokens=2000),
            run("bigger", 0, 2.0, recipe="sizes", data="text", parameters=9),
            run("other", 0, 2.0, recipe="weights", data="other text"),
        )
    )
    names = {group.name: getattr(comparison.baseline(group), "name", None) for group in comparison.groups}
    assert names == {"lm": None, "alpha": "lm", "longer": None, "bigger": None, "other": None}


def test_a_named_baseline_counts_for_all_and_may_be_one_of_the_seeds() -> None:
    runs = [run("lm", 0, 3.0), run("pd", 0, 2.0), run("pd", 1, 2.2)]
    for name in ("pd", "pd-seed-1"):
        comparison = Comparison(results(*runs), name)
        assert comparison.difference(comparison.groups[0], HELDOUT).value == pytest.approx(0.9)  # type: ignore[union-attr]
        assert comparison.difference(comparison.groups[1], HELDOUT) is None


def test_expectations_are_judged_by_their_tolerance_and_beside_their_own_baseline() -> None:
    lm = Expectation(source="Table 9", values={"piqa": 70.0, "mmlu": 30.0, "average": 50.0}, tolerance=1.0)
    pd = Expectation(source="Table 9", values={"piqa": 74.0, "mmlu": 31.0, "average": 52.5, "c3": 5.0}, tolerance=1.0)
    early = Expectation(source="ours", step=4, values={HELDOUT: 5.5})
    before = {4: {HELDOUT: Metric(value=5.25)}}
    comparison = Comparison(
        results(
            run("lm", 0, 3.0, tasks={"piqa": (70.5, None), "mmlu": (29.5, None)}, expect=(lm,)),
            run("pd", 0, 2.0, tasks={"piqa": (72.5, None), "mmlu": (32.0, None)}, expect=(pd, early), at_steps=before),
        )
    )
    found = {(one.group, one.metric): one for one in comparison.expected()}
    piqa = found["pd", "piqa"]
    assert (piqa.ours, piqa.theirs, piqa.our_delta, piqa.their_delta, piqa.is_met) == (72.5, 74.0, 2.0, 4.0, False)
    assert found["pd", "mmlu"].is_met is True
    assert found["lm", "average"].ours == 50.0  # the mean of the row's tasks
    assert found["pd", "average"].ours is None  # one of them was not measured
    assert found["pd", "c3"].is_met is None
    assert (found["pd", HELDOUT].ours, found["pd", HELDOUT].is_met) == (5.25, None)
    table = next(table for table in tables(comparison) if table.title.startswith("Beside"))
    assert ("pd", "piqa", "Table 9", "72.5", "74.0", "-1.5", "+2.0", "+4.0", "no") in table.rows
    assert any(row[:4] == ("pd", "c3", "Table 9", "not measured") for row in table.rows)


def test_interpolation_is_linear_in_the_logarithm_of_tokens() -> None:
    line = curve((100, 4.0), (10_000, 2.0))
    assert interpolate(line, 1000) == pytest.approx(3.0)
    assert interpolate(line, 100) == 4.0
    assert interpolate(line, 99) is None
    assert interpolate(line, 10_001) is None
    assert interpolate(curve((100, 4.0)), 100) == 4.0


def test_at_equal_tokens_and_at_equal_compute() -> None:
    # the baseline read ten times as much; the teacher's pass costs as much again as the student's training
    lm = run("lm", 0, 2.0, heldout=curve((100, 4.0), (1000, 3.0), (10_000, 2.0)), tokens=10_000)
    pd = run("pd", 0, 2.8, heldout=curve((100, 3.8), (1000, 2.8)), tokens=1000, teacher_flops=6e6)
    [row] = matched(Comparison(results(lm, pd)))
    assert row.tokens is not None
    assert (row.tokens.amount, row.tokens.difference) == (1000, pytest.approx(-0.2))
    assert row.flops is not None
    assert (row.flops.amount, row.flops.difference) == (6e6, pytest.approx(-0.2))
    assert row.flops_with_teacher is not None
    assert row.flops_with_teacher.amount == 12e6
    assert row.flops_with_teacher.difference == pytest.approx(2.8 - (3.0 - math.log10(2)))
    assert row.tokens_of_baseline == pytest.approx(10**3.2)


def test_flops_and_rates_of_0_are_not_known_and_0_tokens_have_no_logarithm() -> None:
    points = curve((0, 9.0), (100, 3.8), (1000, 2.8))
    lm, pd = (run(g, 0, 3.0, heldout=points, flops_per_token=0, tokens_per_second=0, device_hours=0) for g in "lp")
    comparison = Comparison(results(lm, pd), "l")
    [row] = matched(comparison)
    assert (row.flops, row.flops_with_teacher) == (None, None)
    assert row.tokens_of_baseline == pytest.approx(1000)
    assert row.tokens is not None
    assert "tokens/s" not in tables(comparison)[0].columns


def test_a_baseline_that_begins_lower_takes_at_most_the_tokens_of_its_first_loss() -> None:
    lm = run("lm", 0, 2.0, heldout=curve((100, 4.0), (1000, 3.0)))
    worse = run("mse", 0, 4.5, heldout=curve((100, 5.0), (1000, 4.5)))
    [row] = matched(Comparison(results(lm, worse)))
    assert (row.tokens_of_baseline, row.at_most) == (100, True)
    table = next(one for one in tables(Comparison(results(lm, worse))) if "equal compute" in one.title)
    assert table.rows[0][-1] == "≤ 100"


def test_where_flops_or_curves_are_unknown_nothing_is_claimed() -> None:
    lm = run("lm", 0, 2.0, heldout=curve((100, 4.0), (1000, 3.0)))
    pd = run("pd", 0, 2.8, heldout=curve((100, 3.8), (1000, 2.8)), teacher_flops=None)
    [row] = matched(Comparison(results(lm, pd)))
    assert row.flops is not None
    assert row.flops_with_teacher is None
    assert row.tokens_of_baseline is None
    assert matched(Comparison(results(run("lm", 0, 2.0), pd))) == []


def test_a_mean_curve_has_the_points_that_all_seeds_have() -> None:
    runs = [run("lm", 0, heldout=curve((1, 3.0), (2, 2.0))), run("lm", 1, heldout=curve((1, 4.0)))]
    assert mean_curve(Comparison(results(*runs)).groups[0]) == curve((1, 3.5))


def test_tasks_before_the_end_stand_by_their_steps() -> None:
    """Means over seeds; with the values that recipes expect at that step, and their difference to the baseline's."""
    row = Expectation(source="Table 12", step=4, values={"piqa": 71.0, "average": 71.0})
    lm, pd = (
        [
            run(
                group,
                seed,
                3.0,
                tasks={"piqa": (80.0, 1.0)},
                at_steps={4: {HELDOUT: Metric(value=4.0), "piqa": Metric(value=value + seed, error=2.0)}, 2: {}},
                expect=(row,),
            )
            for seed in (0, 1)
        ]
        for group, value in (("lm", 70.0), ("pd", 72.0))
    )
    comparison = Comparison(results(*lm, *pd))
    table = next(table for table in tables(comparison) if table.title == "Tasks before the end")
    assert table.columns == ("run", "step", "piqa")
    assert table.rows == (("lm", "4", "70.5 ± 2.0"), ("pd", "4", "72.5 ± 2.0"))
    found = {(one.group, one.metric): (one.ours, one.our_delta) for one in comparison.expected()}
    assert found["pd", "piqa"] == found["pd", "average"] == (72.5, 2.0)
    assert not [table for table in tables(Comparison(results(run("lm", 0, 3.0)))) if table.title.startswith("Tasks")]
