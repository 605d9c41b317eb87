"""The gallery: every recipe is sound and compiles, and every row of the paper's tables has its run.

The tables of docs/gallery.md are written anew by `PDFORGE_UPDATE_SNAPSHOTS=1 pytest` on this file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from pdforge.cli.render.markdown import code, escape
from pdforge.cli.render.markdown import table as markdown_table
from pdforge.compile.stage import write_stage
from pdforge.plan.build import make_plans
from pdforge.plan.content import written_fingerprint
from pdforge.plan.jobs import TrainJob
from pdforge.plan.model import merged_stages
from pdforge.plan.profile import local_profile
from pdforge.recipe.gallery import gallery_names
from pdforge.recipe.load import LoadedRecipe, load_recipes
from pdforge.recipe.models import HuggingFaceTeacher, Recipe, TopPTopK
from pdforge.recipe.sizes import parameter_count

PAGE = Path(__file__).parents[2] / "docs" / "gallery.md"
BEGIN, END = "<!-- written by tests/recipe/test_gallery.py -->\n", "<!-- end -->\n"
TABLES = json.loads((Path(__file__).parents[1] / "data" / "paper_tables.json").read_text(encoding="utf-8"))
METRICS = {name: name.lower().replace("-", "") for name in TABLES["meta"]["columns"]}
ROWS = [(table, row) for table in TABLES if table != "meta" for row in TABLES[table]]
STUDENTS = {"330M": 0.334, "670M": 0.669, "1.9B": 1.866, "3.8B": 3.750, "6.8B": 6.820}
"""Billions of parameters."""
LAST = 59_604
"""Steps of the runs of Table 12."""


@cache
def gallery() -> dict[str, list[LoadedRecipe]]:
    return {name: load_recipes(name) for name in gallery_names()}


def runs_of(table: str, row: str) -> list[tuple[str, LoadedRecipe]]:
    """Runs that expect this row (all its values, under its table and step), each with its recipe's gallery name."""
    values = {METRICS[column]: value for column, value in TABLES[table][row].items()}
    step = int(row.partition("@")[2] or LAST)
    return [
        (name, one)
        for name, recipes in gallery().items()
        for one in recipes
        for expected in one.recipe.expect
        if (expected.source, expected.step or LAST, expected.values) == (f"Table {table[1:]}", step, values)
    ]


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_has_its_run(table: str, row: str) -> None:
    ((_, one),) = runs_of(table, row)
    assert is_that(one.recipe, table, row)


def test_no_run_expects_what_no_row_says() -> None:
    expected = sum(len(one.recipe.expect) for recipes in gallery().values() for one in recipes)
    assert expected == len(ROWS)


def is_that(recipe: Recipe, table: str, row: str) -> bool:
    """Whether the recipe is what the row's name says."""
    subject, _, rest = row.partition(" ")
    match table:
        case "T8":
            _, p, k = row.split("-")
            assert recipe.teacher is not None
            return recipe.teacher.truncation == TopPTopK(top_p=float(p), top_k=int(k))
        case "T9":
            return recipe.objective.temperature == float(row.removeprefix("tau="))
        case "T10":
            return alpha(recipe) == ("constant", float(row.removeprefix("alpha=")))
        case "T11" | "T12" | "T13":
            teacher = recipe.teacher.model if recipe.teacher else None
            larger = isinstance(teacher, HuggingFaceTeacher) and "32B" in teacher.path
            learns_alone = alpha(recipe) == ("constant", 0.0)
            return is_size(recipe, subject) and larger == ("32B" in rest) and learns_alone == rest.startswith("LM")
        case "T6":
            return alpha(recipe) == ("constant", 0.1 if row.endswith("*") else 1.0)
        case _:
            return NAMED[row](recipe)


def alpha(recipe: Recipe) -> tuple[str, float]:
    schedule = recipe.objective.alpha
    return schedule.schedule, schedule.value if schedule.schedule == "constant" else schedule.peak


def is_size(recipe: Recipe, name: str) -> bool:
    count = parameter_count(recipe.student.architecture, recipe.data.tokenizer.vocabulary or 0).total
    return abs(count / 1e9 / STUDENTS[name] - 1) < 0.005


def trains(kind: str, schedule: tuple[str, float], rate: str) -> Callable[[Recipe], bool]:
    """Whether loss, α and learning-rate schedule are these; language modelling alone has no loss of its own."""
    wanted = (None if schedule == ("constant", 0.0) else kind, schedule, rate)
    return lambda r: (
        wanted == (wanted[0] and r.objective.loss.kind, alpha(r), r.training.learning_rate_schedule.schedule)
    )


def adapts(kind: str) -> Callable[[Recipe], bool]:
    return lambda recipe: getattr(recipe.objective.temperature, "kind", None) == kind


NAMED = {
    "LLM-LM": trains("nll", ("constant", 0.0), "cosine"),
    "LLM-KD": trains("nll", ("constant", 1.0), "cosine"),
    "LLM-NLL": trains("nll", ("constant", 1.0), "cosine"),
    "LLM-KLD": trains("kld", ("constant", 1.0), "cosine"),
    "LLM-MSE": trains("mse", ("constant", 1.0), "cosine"),
    "Linear Inc": trains("nll", ("linear_inc", 1.0), "cosine"),
    "Linear Dec": trains("nll", ("linear_dec", 1.0), "cosine"),
    "Period": trains("nll", ("period", 1.0), "cosine"),
    "0-alpha + WSD-LR": trains("nll", ("constant", 0.0), "wsd"),
    "1-alpha + WSD-LR": trains("nll", ("constant", 1.0), "wsd"),
    "WSD-alpha + Cos-LR": trains("nll", ("wsd", 0.9), "cosine"),
    "WSD-beta + WSD-LR": trains("nll", ("wsd_beta", 0.9), "wsd"),
    "WSD-alpha + WSD-LR": trains("nll", ("wsd", 0.9), "wsd"),
    "NormKD": adapts("normkd"),
    "WTTM": adapts("wttm"),
    "AdaKD_SD": adapts("adakd_sd"),
    "AdaKD_H": adapts("adakd_h"),
}
"""What the rows of Tables 1, 3 and 5 are."""


@pytest.mark.parametrize(("figure", "table", "prefix"), [("T2", "T9", "tau="), ("T4", "T10", "alpha=")])
def test_tables_of_changes_are_tables_of_values(figure: str, table: str, prefix: str) -> None:
    """Tables 2 and 4 give, in percent of the average without a teacher, what Tables 9 and 10 give in full."""
    alone = TABLES["T10"]["alpha=0"]["Average"]
    for setting, change in TABLES["meta"][f"{figure}_delta_percent"].items():
        average = TABLES[table][prefix + setting]["Average"]
        assert 100 * (average / alone - 1) == pytest.approx(change, abs=0.3)  # averages are rounded to 0.1


def test_steps_that_are_expected_are_evaluated() -> None:
    """Of tasks: those of Table 12; held-out losses are measured in training."""
    for recipes in gallery().values():
        for recipe in (one.recipe for one in recipes):
            steps = {row.step for row in recipe.expect if row.step and "heldout_loss" not in row.values}
            assert steps == {*(recipe.evaluate.at if recipe.evaluate else ())}


@pytest.mark.parametrize("name", gallery_names())
def test_every_recipe_compiles(name: str, tmp_path: Path) -> None:
    """Every run into jobs of its own; what is compiled for torchtitan is Python."""
    recipes = gallery()[name]
    plans = make_plans(recipes, local_profile(), tmp_path, fingerprint_of=written_fingerprint)
    assert len({plan.hash for plan in plans}) == len(recipes)
    for stage in merged_stages(plans):
        directory = write_stage(stage, tmp_path)
        assert directory.job_json.is_file()
        if isinstance(stage.job, TrainJob):
            compile(directory.train_module.read_text(encoding="utf-8"), directory.train_module, "exec")


def test_the_page_maps_every_row_to_its_run_and_lists_every_recipe() -> None:
    rows = []
    for table, row in ROWS:
        ((name, one),) = runs_of(table, row)
        average = str(TABLES[table][row]["Average"])
        rows.append((f"Table {table[1:]}", escape(row), average, code(f"{name} --variant {one.variant}")))
    recipes = [(code(name), str(len(found)), escape(found[0].recipe.description)) for name, found in gallery().items()]
    listed = markdown_table(("recipe", "runs", ""), recipes)
    mapped = markdown_table(("paper", "row", "average", "recipe and run"), rows)
    page = PAGE.read_text(encoding="utf-8")
    head, _, _ = page.partition(BEGIN)
    written = f"{head}{BEGIN}## Recipes\n\n{listed}\n## The paper's tables, row by row\n\n{mapped}{END}"
    if os.environ.get("PDFORGE_UPDATE_SNAPSHOTS"):
        PAGE.write_text(written, encoding="utf-8")
        page = written
    assert page == written
