"""Parts of a recipe that rules look at in teacher and student alike."""

from __future__ import annotations

from collections.abc import Iterator

from pdforge.recipe.models import Architecture, PretrainedHere, Recipe, Training

_FAR = 10_000
"""How far a suggestion is searched: counts may be of any size."""


def architectures(recipe: Recipe) -> Iterator[tuple[str, Architecture]]:
    """Path and shape of each model whose shape is known."""
    yield "student.architecture", recipe.student.architecture
    if recipe.teacher is not None and recipe.teacher.model.architecture is not None:
        yield "teacher.model.architecture", recipe.teacher.model.architecture


def trainings(recipe: Recipe) -> Iterator[tuple[str, Training, Architecture]]:
    """Path, settings and shape of each model that the recipe trains."""
    yield "training", recipe.training, recipe.student.architecture
    if recipe.teacher is not None and isinstance(recipe.teacher.model, PretrainedHere):
        yield "teacher.model.training", recipe.teacher.model.training, recipe.teacher.model.architecture


def head_width(architecture: Architecture) -> int:
    """Width of a head, rounded down where heads do not divide the hidden size."""
    return architecture.head_dim or architecture.hidden // architecture.heads


def divisors(number: int, near: int) -> str:
    """The divisors of `number` next to `near`, for help texts: what a count that must divide it could be."""
    start = min(near, number)
    below = next((d for d in range(start, max(0, start - _FAR), -1) if number % d == 0), 1)
    above = next((d for d in range(near + 1, min(number, near + _FAR) + 1) if number % d == 0), None)
    return f"{below} or {above}" if above else str(below)
