"""Parts of a recipe that rules look at in teacher and student alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pdforge.recipe.models import Architecture, PretrainedHere, Recipe, Training

_FAR = 10_000
"""How far a suggestion is searched: counts may be of any size."""


def architectures(recipe: Recipe) -> Iterator[tuple[str, Architecture]]:
    """Path and shape of each model whose shape is known."""
    yield "student.architecture", recipe.student.architecture
    if recipe.teacher is not None and recipe.teacher.model.architecture is not None:
        yield "teacher.model.architecture", recipe.teacher.model.architecture


class TrainedPart(NamedTuple):
    """One training of a model."""

    path: str
    """Of its settings: `training`."""
    training: Training
    shape: Architecture
    once: int
    """Tokens that there are for it."""
    source: str
    """The field that says so."""

    @property
    def available(self) -> int:
        """Tokens that it may read, as often as it may read each."""
        return self.once * self.training.epochs

    @property
    def tokens(self) -> int:
        """Tokens that it may take: those asked for, or all."""
        return self.training.tokens or self.available

    @property
    def tokens_field(self) -> str:
        """The field that `tokens` comes from."""
        return f"{self.path}.tokens" if self.training.tokens else self.source

    def steps(self, sequence_length: int) -> int:
        """Its optimizer steps; 0 where its tokens do not make one."""
        asked, once = self.training.tokens, self.once // sequence_length
        sequences = asked // sequence_length if asked else once * self.training.epochs
        return self.training.steps or sequences // self.training.batch.global_


def trainings(recipe: Recipe) -> Iterator[TrainedPart]:
    """Each training that the recipe asks for."""
    student, once = recipe.student.architecture, recipe.data.train_tokens
    yield TrainedPart("training", recipe.training, student, once, "data.train_tokens")
    if recipe.teacher is not None and isinstance(recipe.teacher.model, PretrainedHere):
        model = recipe.teacher.model
        yield TrainedPart("teacher.model.training", model.training, model.architecture, once, "data.train_tokens")
    if recipe.finetune is not None:
        tokens = recipe.finetune.instruction_tokens + (recipe.finetune.text_tokens or 0)
        yield TrainedPart("finetune.training", recipe.finetune.training, student, tokens, "finetune.instruction_tokens")


def head_width(architecture: Architecture) -> int:
    """Width of a head, rounded down where heads do not divide the hidden size."""
    return architecture.head_dim or architecture.hidden // architecture.heads


def divisors(number: int, near: int) -> str:
    """The divisors of `number` next to `near`, for help texts: what a count that must divide it could be."""
    start = min(near, number)
    below = next((d for d in range(start, max(0, start - _FAR), -1) if number % d == 0), 1)
    above = next((d for d in range(near + 1, min(number, near + _FAR) + 1) if number % d == 0), None)
    return f"{below} or {above}" if above else str(below)
