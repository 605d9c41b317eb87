"""Who learns from whom in a recipe: the student, pre-trained and fine-tuned, and every teacher that is distilled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pdforge.recipe.models import Architecture, DistilledHere, LiveLogits, Objective, Recipe, Teacher, Training
from pdforge.schedules import is_zero

FINETUNING = "finetune."
"""`Pupil.path` of the student as it is fine-tuned."""


class Pupil(NamedTuple):
    """A model that may learn from a teacher; one that has several is as many pupils."""

    path: str
    """What stands before the paths of its `training` and `objective`: nothing, `finetune.` or `teacher.model.`."""
    shape: str
    """Path of its architecture."""
    architecture: Architecture
    training: Training
    objective: Objective
    teacher: Teacher | None
    """None: it has none."""
    place: str = "teacher"
    """Path of that teacher: `teacher`, `teachers.0` of several, `finetune.teacher`, `teacher.model.teacher`."""
    weight: float = 1.0
    """Of that teacher."""

    @property
    def distils(self) -> bool:
        """Whether any step gives the teacher weight."""
        return not is_zero(self.objective.alpha)

    def field(self, name: str) -> str:
        """Path of a field that is named as a student with one teacher has it."""
        for students, own in (("student.architecture", self.shape), ("teacher", self.place)):
            if name == students or name.startswith(f"{students}."):
                return own + name.removeprefix(students)
        return self.path + name

    @property
    def assistant(self) -> Pupil | None:
        """Its teacher, where that is itself distilled; None: it is not."""
        model = self.teacher.model if self.teacher else None
        if not isinstance(model, DistilledHere):
            return None
        path = f"{self.place}.model."
        return Pupil(
            path,
            f"{path}architecture",
            model.architecture,
            model.training,
            model.objective,
            model.teacher,
            place=f"{path}teacher",
        )


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


def finetuned(recipe: Recipe) -> Pupil | None:
    """The student as it is fine-tuned, with a teacher beside it; None where that has no objective of its own."""
    finetune = recipe.finetune
    if finetune is None or finetune.objective is None:
        return None
    source, live = finetune.teacher or recipe.teacher, LiveLogits.model_construct(mode="live")
    return Pupil(
        FINETUNING,
        "student.architecture",
        recipe.student.architecture,
        finetune.training,
        finetune.objective,
        source and Teacher.model_construct(model=source.model, logits=live, truncation=source.truncation),
        place="finetune.teacher" if finetune.teacher or recipe.teachers else "teacher",
    )


def pupils(recipe: Recipe) -> Iterator[Pupil]:
    """The student with each of its teachers, and as it is fine-tuned; behind each the teachers that are distilled,
    along the chain upwards.
    """
    after = finetuned(recipe)
    for student in (*student_of(recipe), *([after] if after else [])):
        pupil: Pupil | None = student
        while pupil is not None:
            yield pupil
            pupil = pupil.assistant


def taught(recipe: Recipe) -> Iterator[tuple[Pupil, Teacher]]:
    """Each model that has a teacher, and that teacher."""
    for pupil in pupils(recipe):
        if pupil.teacher is not None:
            yield pupil, pupil.teacher
