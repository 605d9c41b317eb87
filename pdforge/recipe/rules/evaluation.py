"""Rules on what a result is judged by."""

from __future__ import annotations

from collections.abc import Iterator

from pdforge.diagnostics import Severity
from pdforge.recipe.models import Evaluate, EvaluationTask, Recipe
from pdforge.recipe.rules.parts import trainings
from pdforge.recipe.rules.registry import Finding, rule
from pdforge.recipe.sizes import parameter_count

_NEAR_CHANCE = ("mmlu", "ceval", "c_eval", "cmmlu")
"""Knowledge tasks with four choices, by the first letters of their names in the Evaluation Harness."""
_LARGE_ENOUGH = 3_000_000_000


@rule("PD164", Severity.WARNING, "task near chance for a student of this size")
def above_chance(recipe: Recipe) -> Iterator[Finding]:
    """A 1.9B student of 100B tokens answers MMLU and C-Eval hardly better than by guessing, where differences are
    noise: the paper's jumps of top-0.95-50 and of WSD for α and learning rate come from these two tasks alone. Judge
    small students by held-out loss and by tasks that they can do, such as HellaSwag and PIQA."""
    vocabulary = recipe.data.tokenizer.vocabulary
    if recipe.evaluate is None or vocabulary is None:
        return
    student = parameter_count(recipe.student.architecture, vocabulary).total
    if student >= _LARGE_ENOUGH:
        return
    for place, task in _places(recipe.evaluate):
        if task.task.lower().replace("-", "").removeprefix("pdforge_").startswith(_NEAR_CHANCE):
            yield Finding(
                place,
                f"{task.label} is near chance for a student of {student:,} parameters",
                "read its differences as noise, or leave it out",
            )


@rule("PD142", Severity.ERROR, "two results of one name")
def tasks_differ(recipe: Recipe) -> Iterator[Finding]:
    """Results are reported, and expected, by the names of tasks: of two equal ones one would be lost. To evaluate a
    task with several numbers of shots, give each a `name`."""
    seen = {"heldout_loss", "ece", "average"}
    for place, task in _places(recipe.evaluate) if recipe.evaluate else ():
        if task.label in seen:
            yield Finding(place, f"there is a result {task.label!r} already", "give this one another `name`")
        seen.add(task.label)


@rule("PD149", Severity.ERROR, "tasks without an exported model")
def model_is_exported(recipe: Recipe) -> Iterator[Finding]:
    """The harness asks its tasks of a model that transformers loads: `export` writes it."""
    if recipe.evaluate and recipe.export is None:
        for place, task in _places(recipe.evaluate):
            yield Finding(place, f"{task.label} is asked of the exported model, and none is exported", "add export: {}")
            return


@rule("PD119", Severity.ERROR, "evaluated at a step that is not before the end")
def evaluated_before_the_end(recipe: Recipe) -> Iterator[Finding]:
    """`evaluate.at` names steps of the student's training; the finished student, of the last step, is measured in any
    case, and behind it there is none."""
    steps = next(part.steps(recipe.data.sequence_length) for part in trainings(recipe) if part.path == "training")
    for number, step in enumerate(recipe.evaluate.at if recipe.evaluate else ()):
        if step >= steps:
            yield Finding(
                f"evaluate.at.{number}",
                f"step {step:,} is to be evaluated, and the training has {steps:,} steps",
                "leave it out: the last step is measured in any case" if step == steps else "name an earlier step",
            )


def _places(evaluate: Evaluate) -> Iterator[tuple[str, EvaluationTask]]:
    """Every task, with the field that asks for it."""
    own = len(evaluate.all_tasks) - len(evaluate.tasks)
    for number, task in enumerate(evaluate.all_tasks):
        yield "evaluate.suite" if number < own else f"evaluate.tasks.{number - own}.task", task
