"""What a run learns, in a few words: what tells the runs of a sweep apart beside their figures."""

from typing import NamedTuple

from pdforge.recipe.models import HuggingFaceTeacher, Objective, Recipe, Sample, TeacherModel, TorchtitanTeacher
from pdforge.recipe.models import Truncation as TruncationOf
from pdforge.recipe.pupils import student_of
from pdforge.recipe.sizes import parameter_count
from pdforge.text import count


class Science(NamedTuple):
    """Words; empty: the run has none."""

    teacher: str
    truncation: str
    loss: str
    seed: str


def science_of(recipe: Recipe) -> Science:
    """Of the student and its teachers."""
    taught = [pupil.teacher for pupil in student_of(recipe) if pupil.distils and pupil.teacher is not None]
    vocabulary = recipe.data.tokenizer.vocabulary
    return Science(
        teacher=" + ".join(_model(teacher.model, vocabulary) for teacher in taught),
        truncation=" + ".join(dict.fromkeys(_truncation(teacher.truncation) for teacher in taught)),
        loss=_loss(recipe.objective) if taught else "",
        seed=f"{recipe.training.seed}" + (f", data {recipe.data.seed}" if recipe.data.seed else ""),
    )


def _model(model: TeacherModel, vocabulary: int | None) -> str:
    if isinstance(model, HuggingFaceTeacher | TorchtitanTeacher):
        return model.path.rstrip("/").rpartition("/")[2]
    size = f" {count(parameter_count(model.architecture, vocabulary).total)}" if vocabulary else ""
    return f"{model.kind}{size}"


def _truncation(truncation: TruncationOf) -> str:
    """As the paper names them: top-0.95-50."""
    if isinstance(truncation, Sample):
        return f"{truncation.draws} draws"
    return f"top-{truncation.top_p:g}-{truncation.top_k}"


def _loss(objective: Objective) -> str:
    loss = type(objective.loss)
    fields = {name: value for name, value in objective.loss if name != "kind"}
    settings = [f"{name} {value}" for name, value in fields.items() if value != loss.model_fields[name].default]
    tail = [] if objective.tail == "renormalise" else [f"tail {objective.tail}"]
    chosen = [f"entropy filter {objective.token_filter.skip_lowest_entropy:g}"] if objective.token_filter else []
    return ", ".join([objective.loss.kind, *settings, *tail, *chosen])
