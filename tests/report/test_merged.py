"""Results of several files as those of one report."""

from __future__ import annotations

from pdforge.report.model import HELDOUT, StoreResult, merged
from tests.report.made import results, run


def test_each_run_once_and_the_last_result_counts() -> None:
    first = results(run("lm", 0, 3.0), run("pd", 0), run("pd", 1, 2.5))
    second = results(run("pd", 0, 2.9), run("pd", 1), run("lm", 0, 2.0))
    found = {one.name: one.metrics[HELDOUT].value for one in merged([first, second]).runs}
    assert found == {"lm-seed-0": 2.0, "pd-seed-0": 2.9, "pd-seed-1": 2.5}


def test_runs_of_two_recipes_with_one_name_are_told_apart() -> None:
    here = run("lm", 0, 3.0, recipe="a", directory="a-lm-1")
    there = run("lm", 0, 2.0, recipe="b", directory="b-lm-2")
    other = run("pd", 0, 2.0, recipe="b", directory="b-pd-3")
    both = merged([results(here), results(there, other)])
    assert [one.name for one in both.runs] == ["a-lm-seed-0", "b-lm-seed-0", "pd-seed-0"]
    assert [one.group for one in both.runs] == ["a-lm", "b-lm", "pd"]


def test_seeds_of_one_group_may_come_from_two_files() -> None:
    both = merged([results(run("pd", 0, 3.0)), results(run("pd", 1, 2.0))])
    assert {one.group for one in both.runs} == {"pd"}


def test_two_configurations_under_one_name_are_no_repetition() -> None:
    first = [run("pd", seed, 3.0, directory=f"pd-{seed}", configuration="one") for seed in (0, 1)]
    second = [run("pd", 0, 2.0, directory="pd-2", configuration="two")]
    both = merged([results(*first), results(*second)]).runs
    assert [one.name for one in both] == ["pd-0", "pd-seed-1", "pd-2"]
    assert both[0].group == both[1].group != both[2].group


def test_what_is_shared_is_there_once() -> None:
    store = StoreResult(identity="s", kept_count=1, kept_mass=1, positions=1, bytes=1)
    parts = [results(run("pd", seed, 3.0)).model_copy(update={"stores": [store]}) for seed in (0, 1)]
    assert merged(parts).stores == [store]
    assert merged([]).runs == []
