"""Who learns from whom in a recipe: the student, and every teacher that is itself distilled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pdforge.recipe.models import Architecture, DistilledHere, Objective, Recipe, Teacher, Training
from pdforge.schedules import is_zero


class Pupil(NamedTuple):
    """A model that may learn from a teacher."""

    path: str
    """What stands before the paths of its `training`, `objective` and `teacher`: nothing, or `teacher.model.`."""
    shape: str
    """Path of its architecture."""
    architecture: Architecture
    training: Training
    objective: Objective
    teacher: Teacher | None
    """None: it has none."""

    @property
    def distils(self) -> bool:
        """Whether any step gives the teacher weight."""
        return not is_zero(self.objective.alpha)

    @property
    def assistant(self) -> Pupil | None:
        """Its teacher, where that is itself distilled; None: it is not."""
        model = self.teacher.model if self.teacher else None
        if not isinstance(model, DistilledHere):
            return None
        place = f"{self.path}teacher.model."
        return Pupil(place, f"{place}architecture", model.architecture, model.training, model.objective, model.teacher)


def student_of(recipe: Recipe) -> Pupil:
    """The recipe's student."""
    shape = recipe.student.architecture
    return Pupil("", "student.architecture", shape, recipe.training, recipe.objective, recipe.teacher)


def pupils(recipe: Recipe) -> Iterator[Pupil]:
    """The student, then its teacher where that is distilled, and so on: along the chain, upwards."""
    pupil: Pupil | None = student_of(recipe)
    while pupil is not None:
        yield pupil
        pupil = pupil.assistant


def taught(recipe: Recipe) -> Iterator[tuple[Pupil, Teacher]]:
    """Each model that has a teacher, and that teacher."""
    for pupil in pupils(recipe):
        if pupil.teacher is not None:
            yield pupil, pupil.teacher
