"""Rules on what a result is judged by."""

from __future__ import annotations

from collections.abc import Iterator

from pdforge.diagnostics import Severity
from pdforge.recipe.models import Recipe
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
    for number, task in enumerate(recipe.evaluate.tasks):
        if task.task.lower().replace("-", "").startswith(_NEAR_CHANCE):
            yield Finding(
                f"evaluate.tasks.{number}.task",
                f"{task.task} is near chance for a student of {student:,} parameters",
                "read its differences as noise, or leave it out",
            )


@rule("PD142", Severity.ERROR, "a task is evaluated twice")
def tasks_differ(recipe: Recipe) -> Iterator[Finding]:
    """Results are reported by task and number of shots: two equal entries would cost twice and show once."""
    seen: set[tuple[str, int]] = set()
    for number, task in enumerate(recipe.evaluate.tasks if recipe.evaluate else ()):
        if (task.task, task.shots) in seen:
            yield Finding(
                f"evaluate.tasks.{number}.task", f"{task.task} with {task.shots} shots is listed before", "keep one"
            )
        seen.add((task.task, task.shots))
