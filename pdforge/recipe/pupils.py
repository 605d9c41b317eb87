"""Who learns from whom in a recipe: the student, and every teacher that is itself distilled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pdforge.recipe.models import Architecture, DistilledHere, Objective, Recipe, Teacher, Training
from pdforge.schedules import is_zero


class Pupil(NamedTuple):
    """A model that may learn from a teacher; one that has several is as many pupils."""

    path: str
    """What stands before the paths of its `training`, `objective` and `teacher`: nothing, or `teacher.model.`."""
    shape: str
    """Path of its architecture."""
    architecture: Architecture
    training: Training
    objective: Objective
    teacher: Teacher | None
    """None: it has none."""
    place: str = "teacher"
    """Where it stands: `teacher`, or `teachers.0` of several."""
    weight: float = 1.0
    """Of that teacher."""

    @property
    def distils(self) -> bool:
        """Whether any step gives the teacher weight."""
        return not is_zero(self.objective.alpha)

    def field(self, name: str) -> str:
        """Path of a field that is named as a student with one teacher has it."""
        whose, dot, rest = name.partition(".")
        return f"{self.path}{self.place if whose == 'teacher' else whose}{dot}{rest}"

    @property
    def assistant(self) -> Pupil | None:
        """Its teacher, where that is itself distilled; None: it is not."""
        model = self.teacher.model if self.teacher else None
        if not isinstance(model, DistilledHere):
            return None
        path = self.field("teacher.model.")
        return Pupil(path, f"{path}architecture", model.architecture, model.training, model.objective, model.teacher)


def student_of(recipe: Recipe) -> list[Pupil]:
    """The recipe's student, once for each of its teachers; once without any too."""
    alone = Pupil(
        "", "student.architecture", recipe.student.architecture, recipe.training, recipe.objective, recipe.teacher
    )
    if not recipe.teachers:
        return [alone]
    return [
        alone._replace(teacher=teacher, place=f"teachers.{number}", weight=teacher.weight)
        for number, teacher in enumerate(recipe.teachers)
    ]


def pupils(recipe: Recipe) -> Iterator[Pupil]:
    """The student with each of its teachers, and behind it the teachers that are distilled, along the chain upwards."""
    for student in student_of(recipe):
        pupil: Pupil | None = student
        while pupil is not None:
            yield pupil
            pupil = pupil.assistant


def taught(recipe: Recipe) -> Iterator[tuple[Pupil, Teacher]]:
    """Each model that has a teacher, and that teacher."""
    for pupil in pupils(recipe):
        if pupil.teacher is not None:
            yield pupil, pupil.teacher
