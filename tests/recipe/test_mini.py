"""The miniature of the paper: what it varies, what it shares, and that one command runs all of it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from pdforge.plan.build import make_plans
from pdforge.plan.content import written_fingerprint
from pdforge.plan.model import Plan, merged_stages
from pdforge.plan.profile import local_profile
from pdforge.recipe.gallery import gallery_names
from pdforge.recipe.load import load_recipes

STUDIES = [name for name in gallery_names() if name.startswith("mini/")]
PAPER = {"lm-cosine", "lm-wsd", "nll", "kld", "mse", "linear-inc", "linear-dec", "wsd-wsd-lr"}
PAPER |= {"alpha-0.5", "alpha-0.9", "tau-0.5", "tau-2", "tau-5", "tau-10", "top-0.95-1", "top-0.95-5", "top-0.95-50"}
PAPER |= {"top-0.5-100", "sampled-12", "sampled-50", "ghost", "online-early", "online-late", "half-pd", "tenth-pd"}
"""Of the design space, what has a name in the paper's tables, or in those of the papers beside it."""


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[Plan]:
    root, profile = tmp_path_factory.mktemp("runs"), local_profile(processes=1)
    recipes = [one for name in STUDIES for one in load_recipes(name)]
    return make_plans(recipes, profile, root, fingerprint_of=written_fingerprint)


def test_it_has_the_design_space_with_three_seeds_each(plans: list[Plan]) -> None:
    seeds = Counter(re.sub(r"-seed-\d$", "", plan.label) for plan in plans)
    assert set(seeds) >= PAPER
    assert set(seeds.values()) == {3}
    assert len({plan.label for plan in plans}) == len(plans), "a report names its rows after the variants alone"


def test_runs_that_differ_in_nothing_but_their_name_are_not_run_twice(plans: list[Plan]) -> None:
    assert len({plan.training.identity for plan in plans}) == len(plans)


def test_all_studies_share_their_teachers_and_stores(plans: list[Plan]) -> None:
    """One teacher, and its twins that store what they say while they learn, from two steps on. Each number of draws has
    a store of its own; everything else learns its own truncation of one.
    """
    stages = merged_stages(plans)
    kinds = Counter(stage.kind for stage in stages if stage.shared)
    assert kinds == {"tokenize": 1, "pretrain-teacher": 3, "capture": 5}


def test_all_students_learn_as_many_tokens(plans: list[Plan]) -> None:
    assert {plan.figures.stages[plan.training.key].tokens for plan in plans} == {409_600}


def test_sizes_are_those_that_the_files_name(plans: list[Plan]) -> None:
    teacher = {plan.figures.teacher.parameters for plan in plans if plan.figures.teacher}
    students = {plan.figures.student.parameters for plan in plans}
    assert teacher == {4_737_792}
    assert students == {459_328, 1_078_144, 2_410_176}


def test_make_runs_every_study() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    (named,) = re.findall(r"^MINIATURE := (.*)$", makefile, re.MULTILINE)
    assert sorted(f"mini/{name}" for name in named.split()) == sorted(STUDIES)
