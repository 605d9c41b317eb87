"""Rules on distributions that are captured while their teacher is pre-trained (`teacher.logits.mode: online`)."""

from __future__ import annotations

from collections.abc import Iterator

from pdforge.diagnostics import Severity
from pdforge.recipe.models import OnlineLogits, PretrainedHere, Recipe, TeacherConvergence
from pdforge.recipe.pupils import Pupil
from pdforge.recipe.rules.parts import TrainedPart, each_pupil, trainings
from pdforge.recipe.rules.registry import Finding, rule

_LATE = 0.5
"""Part of the teacher's training after which its distributions are worth learning."""
_MOST_ALPHA = 0.1


def _online(pupil: Pupil) -> OnlineLogits | None:
    logits = pupil.teacher.logits if pupil.teacher else None
    return logits if isinstance(logits, OnlineLogits) else None


def _follows(pupil: Pupil) -> bool:
    """Whether α takes account of how far the teacher was."""
    return isinstance(pupil.objective.alpha, TeacherConvergence)


def _trained(recipe: Recipe, path: str) -> TrainedPart | None:
    return next((part for part in trainings(recipe) if part.path == path), None)


def _teacher(recipe: Recipe, pupil: Pupil) -> TrainedPart | None:
    return _trained(recipe, pupil.field("teacher.model.training"))


@rule("PD133", Severity.ERROR, "online distributions of a teacher that is not pre-trained here")
@each_pupil
def online_pretrains(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """Online distributions are stored in the steps of the teacher's own training, so the recipe must train it
    (`kind: pretrain`). A teacher that exists already is captured offline, or runs live."""
    if _online(pupil) and pupil.teacher and not isinstance(pupil.teacher.model, PretrainedHere):
        yield Finding(
            "teacher.logits.mode", f"mode is online, and the teacher is {pupil.teacher.model.kind}", "mode: offline"
        )


@rule("PD134", Severity.ERROR, "the teacher's remaining steps make too little for the student")
@each_pupil
def online_suffices(recipe: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """The student learns the sequences that the teacher is trained on from from_step to its end: those must be at
    least as many as the student's training takes."""
    online, teacher, student = _online(pupil), _teacher(recipe, pupil), _trained(recipe, f"{pupil.path}training")
    if online is None or teacher is None or student is None:
        return
    length = recipe.data.sequence_length
    captured = max(0, teacher.steps(length) - online.from_step + 1) * teacher.training.batch.global_
    needed = student.steps(length) * student.training.batch.global_
    if captured < needed:
        yield Finding(
            "teacher.logits.from_step",
            f"from step {online.from_step} of {teacher.steps(length)} the teacher sees {captured} sequences; "
            f"the student learns {needed}",
            "capture from an earlier step, or train the student on less",
        )


@rule("PD140", Severity.ERROR, "online distributions and several epochs")
@each_pupil
def online_reads_once(recipe: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """Online distributions belong to the sequences in the order of the teacher's training: a sequence that it sees
    twice would have two of them, and a student that reads again, in another order, would read what was not captured."""
    for path, part in (("training", pupil), ("teacher.model.training", _teacher(recipe, pupil))):
        if _online(pupil) and part is not None and part.training.epochs > 1:
            yield Finding(f"{path}.epochs", f"epochs is {part.training.epochs}, and mode is online", "epochs: 1")


@rule("PD146", Severity.ERROR, "α follows a convergence that nobody recorded")
@each_pupil
def follows_what_is_seen(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """A teacher that stores its distributions while it is pre-trained (`logits: {mode: online}`) records how it did at
    each step, and `alpha: {schedule: teacher_convergence}` follows that. Distributions that are captured afterwards, or
    live, are all of one teacher that no longer changes: there is nothing to follow."""
    if _follows(pupil) and pupil.distils and pupil.teacher and not _online(pupil):
        yield Finding(
            "objective.alpha.schedule",
            f"schedule is teacher_convergence, and the teacher's distributions are {pupil.teacher.logits.mode}",
            "schedule: wsd; or logits: {mode: online, from_step: …} of a teacher that is pre-trained here",
        )


@rule("PD160", Severity.WARNING, "distributions from early in the teacher's training")
@each_pupil
def online_late(recipe: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """The paper stores the distributions of a 9B teacher while it is pre-trained over 400B tokens: a student of its
    first 100B does 20.9 % worse than without a teacher, one of its last 100B 3.9 % worse, and 0.5 % better with
    α = 0.1. An early teacher knows less than the data does. An α that follows its convergence gives it little weight
    as long as that is so."""
    online, teacher = _online(pupil), _teacher(recipe, pupil)
    if online is None or teacher is None or not pupil.distils or _follows(pupil):
        return
    steps = teacher.steps(recipe.data.sequence_length)
    if steps > 0 and online.from_step < _LATE * steps:
        yield Finding(
            "teacher.logits.from_step",
            f"captured from step {online.from_step} of {steps}: an early teacher's distributions hurt",
            "capture the last part of its training, mode: offline, or alpha: {schedule: teacher_convergence}",
        )


@rule("PD162", Severity.WARNING, "much weight on distributions captured in training")
@each_pupil
def online_little_weight(_: Recipe, pupil: Pupil) -> Iterator[Finding]:
    """Distributions of a teacher that is still being trained help only with little weight: in the paper those of the
    last 100B of 400B tokens lose 3.9 % at full weight and gain 0.5 % at α = 0.1 with top-0.95-50. An α that follows the
    teacher's convergence is small by itself where the teacher was far from its end."""
    alpha = pupil.objective.alpha
    field, most = ("value", alpha.value) if alpha.schedule == "constant" else ("peak", alpha.peak)
    if alpha.schedule == "wsd_beta":
        most = 1.0
    if _online(pupil) and most > _MOST_ALPHA and not _follows(pupil):
        yield Finding(
            f"objective.alpha.{field}",
            f"α reaches {most:g} on online distributions; the paper gained at 0.1",
            "alpha: 0.1, or {schedule: teacher_convergence}",
        )
