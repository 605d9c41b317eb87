"""The recipes of docs (recipes, finetune, evaluate, gallery) are sound, and make the runs that the pages say."""

from __future__ import annotations

import re
from pathlib import Path

from pdforge.plan.build import make_plans
from pdforge.plan.clusters import find_profile
from pdforge.plan.jobs import TrainJob
from pdforge.recipe.load import LoadedRecipe
from pdforge.recipe.parts.after import SUITES
from tests.recipe.sound import load

DOCS = Path(__file__).parents[2] / "docs"


def recipes(page: str) -> dict[str, list[LoadedRecipe]]:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    loaded = [load(block) for block in blocks]
    return {each[0].recipe.recipe: each for each in loaded}


def test_examples_are_sound_and_make_the_runs_that_the_page_says() -> None:
    found = recipes("recipes.md")
    assert [each.warnings for loaded in found.values() for each in loaded] == [[]] * sum(map(len, found.values()))
    assert {name: len(loaded) for name, loaded in found.items()} == {
        "softer": 2,
        "losses": 5,
        "study": 6,
        "scaling": 12,
        "flat": 2,
        "forms": 2,
    }
    names = [each.variant for each in found["scaling"]]
    assert {"pd-layers-4-learning_rate-0.003-seed-0", "pd-small-seed-0"} <= set(names)


def test_the_examples_of_fine_tuning_can_be_planned(tmp_path: Path) -> None:
    found = recipes("finetune.md")
    plans, taught = (
        make_plans(found[name], find_profile("local"), tmp_path) for name in ("tuned", "tuned-by-a-teacher")
    )
    assert [plan.label for plan in plans] == ["lm", "pd"]
    for plan in plans:
        assert [stage.kind for stage in plan.stages][-3:] == ["tokenize-conversations", "finetune", "export"]
    jobs = [plan.stage("finetune").job for plan in (*plans, *taught)]  # type: ignore[union-attr]
    assert [isinstance(job, TrainJob) and job.teacher is not None for job in jobs] == [False, False, True]


def test_the_example_of_evaluation_can_be_planned(tmp_path: Path) -> None:
    plans = make_plans(recipes("evaluate.md")["measured"], find_profile("local"), tmp_path)
    for plan in plans:
        assert [stage.kind for stage in plan.stages][-2:] == ["export", "evaluate"]
        [expected] = plan.recipe.expect
        assert plan.recipe.evaluate is not None
        assert list(expected.values) == [task.label for task in plan.recipe.evaluate.all_tasks]


def test_the_example_of_the_gallery_measures_what_is_expected() -> None:
    loaded = recipes("gallery.md")["alpha-measured"]
    assert len(loaded) == 9
    for one in loaded:
        assert one.recipe.evaluate is not None
        assert one.recipe.finetune is not None
        [expected] = one.recipe.expect
        assert {*expected.values} == {"average", *(task.label for task in one.recipe.evaluate.all_tasks)}


def test_the_page_lists_the_tasks_of_the_paper() -> None:
    page = (DOCS / "evaluate.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.*?)` \| `(.*?)` \| (\d) \|", page, re.MULTILINE)
    assert rows == [(task.label, task.task, str(task.shots)) for task in SUITES["paper"]]
