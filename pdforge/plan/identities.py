"""Identities of stages and runs: hashes of everything that changes a result, and of nothing else.

What is left out on purpose: names and descriptions; where a stage runs (profile, device, processes, paths); and the
fields of `training` that say how the same numbers are reached (parallelism, micro batch, …). New fields count until
they are named here: an identity too many costs time, one too few serves a wrong result.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from pdforge import __version__
from pdforge.identity import identity
from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.models import (
    Architecture,
    Constant,
    Data,
    Evaluate,
    Export,
    LearningRateConstant,
    Objective,
    ScheduledTemperature,
    Training,
    Truncation,
)
from pdforge.schedules import is_zero
from pdforge.versions import SPMD_TYPES, TORCH, TORCHTITAN

_HOW_NOT_WHAT = {
    "tokens": True,  # counted as whole steps instead, as is
    "steps": True,
    "epochs": True,  # how often the data may be read: steps say how often it is
    "batch": {"micro"},
    "parallelism": True,
    "checkpoint": True,
    "activation_checkpointing": True,
    "compile": True,
    "loss_chunks": True,
    "log_every": True,
    "trackers": True,
    "validate_every": True,
}


def tokenize_identity(
    data: Data, *, corpus: str, tokenizer: dict[str, Any], train_sequences: int, validation_sequences: int
) -> str:
    """Of a token store. `corpus` is its content's fingerprint, `tokenizer` what names it (`pdforge.plan.content`)."""
    return _stage(
        "tokenize",
        needs=[],
        corpus=corpus,
        tokenizer=tokenizer,
        sequence_length=data.sequence_length,
        train_sequences=train_sequences,
        validation_sequences=validation_sequences,
        seed=data.seed,
    )


def teacher_identity(
    architecture: Architecture,
    training: Training,
    *,
    steps: int,
    tokens: str,
    online: BaseModel | None = None,
    objective: Objective | None = None,
    logits: str | None = None,
    learnt: Truncation | None = None,
) -> str:
    """Of a teacher that is trained here on the token store `tokens`, and may store its distributions (`online`).

    A distilled one has an `objective`, and learns `learnt` of the distributions `logits`, as in `train_identity`.
    """
    stored = {} if online is None else {"online": online.model_dump(mode="json")}
    distilled = {} if objective is None else {"objective": objective.model_dump(mode="json", exclude_none=True)}
    cut = {} if learnt is None else {"learnt": learnt.model_dump(mode="json")}
    return _stage(
        "pretrain-teacher",
        needs=[tokens, *([logits] if logits else [])],
        architecture=_shape(architecture),
        training=resulting(training),
        steps=steps,
        **stored,
        **distilled,
        **cut,
    )


def capture_identity(
    *,
    teacher: str,
    tokens: str,
    sequences: int,
    truncation: Truncation,
    precision: str,
    shard_sequences: int,
    codec: str,
    columns: Sequence[str],
    from_step: int | None = None,
) -> str:
    """Of a logit store: `sequences` samples of `tokens` as `teacher` sees them; with `from_step` as it saw them while
    it was trained, from that step on.
    """
    online = {} if from_step is None else {"from_step": from_step}
    return _stage(
        "capture",
        needs=[teacher, tokens],
        sequences=sequences,
        truncation=truncation.model_dump(mode="json"),
        precision=precision,
        shard_sequences=shard_sequences,
        codec=codec,
        columns=list(columns),
        **online,
    )


def live_identity(*, teacher: str, truncation: Truncation, precision: str) -> str:
    """Of the distributions of a teacher that runs beside the student: it stands for them where nothing is stored."""
    return _stage("live", needs=[teacher], truncation=truncation.model_dump(mode="json"), precision=precision)


class Taught(NamedTuple):
    """One of several teachers of a student."""

    logits: str
    """Identity of its logit store."""
    weight: float
    learnt: Truncation | None
    """What the student reads of the store, where it holds more."""


def train_identity(
    architecture: Architecture,
    training: Training,
    objective: Objective,
    *,
    steps: int,
    tokens: str,
    logits: str | None,
    learnt: Truncation | None = None,
    several: Sequence[Taught] = (),
    initial: str | None = None,
) -> str:
    """Of a student. Where α is 0 at every step, nothing else of the objective matters, and `logits` is None.

    `logits` is the identity of the logit store, or of a live teacher's distributions; `learnt` what the student reads
    of the store, where it holds more; `several` says both of each teacher where there are several; `initial` the
    identity of the weights to start from.
    """
    cut = {} if learnt is None else {"learnt": learnt.model_dump(mode="json")}
    start = {} if initial is None else {"initial": initial}
    many = {"teachers": [_taught(each) for each in several]} if several else {}
    return _stage(
        "train",
        needs=[tokens, *([logits] if logits else [])],
        architecture=_shape(architecture),
        training=resulting(training),
        objective=None if is_zero(objective.alpha) else objective.model_dump(mode="json", exclude_none=True),
        steps=steps,
        **cut,
        **start,
        **many,
    )


def _taught(teacher: Taught) -> dict[str, Any]:
    learnt = teacher.learnt and teacher.learnt.model_dump(mode="json")
    return {"logits": teacher.logits, "weight": teacher.weight, "learnt": learnt}


def conversations_identity(
    *, corpus: str, chat: ChatFormat, tokens: str, train_sequences: int, validation_sequences: int, seed: int
) -> str:
    """Of the token store of conversations, which are tokenized as those of the store `tokens`."""
    return _stage(
        "tokenize-conversations",
        needs=[tokens],
        corpus=corpus,
        chat=chat.model_dump(mode="json"),
        train_sequences=train_sequences,
        validation_sequences=validation_sequences,
        seed=seed,
    )


def kin_identity(
    architecture: Architecture,
    training: Training,
    objective: Objective,
    *,
    tokens: str,
    logits: str | None,
    learnt: Truncation | None = None,
    several: Sequence[Taught] = (),
    initial: str | None = None,
) -> str:
    """Of all students that are alike but for their length and their schedules: as long as no schedule has had another
    value in one than in another, they have the same numbers. `logits` must not depend on how many are stored.
    """
    same: dict[str, Any] = {"alpha": Constant.model_construct(value=0.0 if is_zero(objective.alpha) else 1.0)}
    if isinstance(objective.temperature, ScheduledTemperature):
        same["temperature"] = objective.temperature.model_copy(update={"along": Constant.model_construct(value=1.0)})
    rate = LearningRateConstant.model_construct(schedule="constant", warmup=0.0)
    return train_identity(
        architecture,
        training.model_copy(update={"learning_rate_schedule": rate}),
        objective.model_copy(update=same),
        steps=0,
        tokens=tokens,
        logits=logits,
        learnt=learnt,
        several=several,
        initial=initial,
    )


def student_at_identity(train: str, step: int) -> str:
    """Of the student as it was at a step of its training `train`."""
    return _stage("train", needs=[train], step=step)


def finetune_identity(
    training: Training,
    objective: Objective | None,
    *,
    train: str,
    conversations: str,
    logits: str | None,
    steps: int,
    sequences: int,
    text_sequences: int,
) -> str:
    """Of a fine-tuned student: `sequences` samples of `conversations` and further ones of the text of `train`; with an
    objective as in `train_identity`, `logits` the identity of the live teacher's distributions.
    """
    distilled = objective is not None and not is_zero(objective.alpha)
    minimised = {"objective": objective.model_dump(mode="json", exclude_none=True)} if objective and distilled else {}
    return _stage(
        "finetune",
        needs=[train, conversations, *([logits] if logits else [])],
        training=resulting(training),
        steps=steps,
        sequences=sequences,
        text_sequences=text_sequences,
        **minimised,
    )


def export_identity(export: Export, *, student: str) -> str:
    """Of an exported student; `student` names its last training."""
    return _stage("export", needs=[student], **export.model_dump(mode="json"))


def evaluate_identity(evaluate: Evaluate, *, student: str, export: str | None, include: str | None) -> str:
    """Of the measurements of a student; `include` names the content of the folder of task files."""
    return _stage(
        "evaluate",
        needs=[student, *([export] if export else [])],
        tasks=[task.model_dump(mode="json") for task in evaluate.all_tasks],
        limit=evaluate.limit,
        include=include,
    )


def run_hash(train: str, finetune: str | None) -> str:
    """Of a run: the student's identity, which holds those of all stages before it, that of its fine-tuning, and
    pdforge's own version. In what forms the student is exported, and what is measured of it, may be decided when it is
    trained.
    """
    after = {} if finetune is None else {"finetune": finetune}
    return identity({"run": train, "pdforge": __version__, **after})


def _stage(kind: str, *, needs: list[str], **parts: Any) -> str:
    versions = {"torch": list(TORCH), "torchtitan": TORCHTITAN, "spmd_types": SPMD_TYPES}
    return identity({"stage": kind, "needs": needs, "versions": versions, **parts})


def _shape(architecture: Architecture) -> dict[str, Any]:
    """The architecture with its defaults worked out: `kv_heads: 4` and the default of 4 heads are one shape."""
    return {
        **architecture.model_dump(mode="json"),
        "kv_heads": architecture.kv_heads or architecture.heads,
        "head_dim": architecture.head_dim or architecture.hidden // architecture.heads,
    }


def resulting(training: Training) -> dict[str, Any]:
    """The fields of a training that its result depends on."""
    return training.model_dump(mode="json", by_alias=True, exclude=_HOW_NOT_WHAT)  # type: ignore[arg-type]
