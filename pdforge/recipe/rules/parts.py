"""Parts of a recipe that rules look at in teacher and student alike."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import NamedTuple

from pdforge.recipe.models import Architecture, PretrainedHere, Recipe, Training
from pdforge.recipe.pupils import Pupil, pupils
from pdforge.recipe.rules.registry import Check, Finding

_FAR = 10_000
"""How far a suggestion is searched: counts may be of any size."""


def each_pupil(check: Callable[[Recipe, Pupil], Iterator[Finding]]) -> Check:
    """A check of the student that also looks at its fine-tuning and at every distilled teacher; it yields fields as the
    student has them.
    """

    @wraps(check)
    def checked(recipe: Recipe) -> Iterator[Finding]:
        for pupil in pupils(recipe):
            for finding in check(recipe, pupil):
                yield finding._replace(field=pupil.field(finding.field))

    return checked


def architectures(recipe: Recipe) -> Iterator[tuple[str, Architecture]]:
    """Path and shape of each model whose shape is known."""
    found: dict[str, Architecture] = {}
    for pupil in pupils(recipe):
        found[pupil.shape] = pupil.architecture
        model = pupil.teacher.model if pupil.teacher else None
        if model is not None and model.architecture is not None:
            found[pupil.field("teacher.model.architecture")] = model.architecture
    yield from found.items()


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
    repeated: bool = True
    """Whether it may read them in `epochs`; not where each time counts already."""

    @property
    def times(self) -> int:
        """How often it may read each token."""
        return self.training.epochs if self.repeated else 1

    @property
    def available(self) -> int:
        """Tokens that it may read, as often as it may read each."""
        return self.once * self.times

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
        sequences = asked // sequence_length if asked else once * self.times
        return self.training.steps or sequences // self.training.batch.global_


def trainings(recipe: Recipe) -> Iterator[TrainedPart]:
    """Each training that the recipe asks for."""
    once, source = recipe.data.train_tokens, "data.train_tokens"
    found: dict[str, TrainedPart] = {}
    for pupil in pupils(recipe):
        path = f"{pupil.path}training"
        found.setdefault(path, TrainedPart(path, pupil.training, pupil.architecture, once, source))
        model = pupil.teacher.model if pupil.teacher else None
        if isinstance(model, PretrainedHere):
            path = pupil.field("teacher.model.training")
            found[path] = TrainedPart(path, model.training, model.architecture, once, source)
    if recipe.finetune is not None:
        # has tokens of its own, also where it is a pupil
        tokens = recipe.finetune.instruction_tokens + (recipe.finetune.text_tokens or 0)
        shape, asked, path = recipe.student.architecture, "finetune.instruction_tokens", "finetune.training"
        found[path] = TrainedPart(path, recipe.finetune.training, shape, tokens, asked, repeated=False)
    yield from found.values()


def head_width(architecture: Architecture) -> int:
    """Width of a head, rounded down where heads do not divide the hidden size."""
    return architecture.head_dim or architecture.hidden // architecture.heads


def divisors(number: int, near: int) -> str:
    """The divisors of `number` next to `near`, for help texts: what a count that must divide it could be."""
    start = min(near, number)
    below = next((d for d in range(start, max(0, start - _FAR), -1) if number % d == 0), 1)
    above = next((d for d in range(near + 1, min(number, near + _FAR) + 1) if number % d == 0), None)
    return f"{below} or {above}" if above else str(below)
