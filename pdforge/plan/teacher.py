"""Teachers: where the weights of those from outside are, what names them, and what is stored of any."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from pdforge.errors import EnvironmentFault, UsageError
from pdforge.identity import identity
from pdforge.plan import identities
from pdforge.plan.content import fingerprint_folder
from pdforge.plan.initialise import checkpoint_of, huggingface_folder
from pdforge.plan.jobs import CaptureJob, HuggingFaceSource, ModelSource, OnlineCapture
from pdforge.plan.shapes import shape_of
from pdforge.pretrained import require_files
from pdforge.recipe.columns import QUANTILE_SEQUENCES, required_columns
from pdforge.recipe.hub import is_hub_id
from pdforge.recipe.models import (
    Codec,
    Column,
    HuggingFaceTeacher,
    OfflineLogits,
    OnlineLogits,
    PretrainedHere,
    Recipe,
    Sample,
    Teacher,
    TorchtitanTeacher,
    Truncation,
)
from pdforge.recipe.pupils import Pupil

DEFAULT_CODEC: Codec = "rank-gap-63"


def torchtitan_teacher(
    teacher: TorchtitanTeacher, place: str, *, vocabulary: int, sequence_length: int
) -> tuple[ModelSource, str]:
    """The weights and their identity, which is that of their content. `place` is the model's path in the recipe.

    Raises:
        EnvironmentFault: there are none, or they are of another model.
    """
    if teacher.step is None:
        weights = folder = huggingface_folder(teacher.path, place, teacher.architecture, place, vocabulary)
    else:
        weights = checkpoint_of(teacher.path, teacher.step, place)
        folder = weights.parent
    source = ModelSource.model_construct(
        architecture=teacher.architecture,
        vocabulary=vocabulary,
        sequence_length=sequence_length,
        checkpoint=str(folder),
        step=teacher.step,
        place=place,
    )
    shape = teacher.architecture.model_dump(mode="json")
    return source, identity({"teacher": "torchtitan", "content": fingerprint_folder(weights), "architecture": shape})


def huggingface_teacher(
    teacher: HuggingFaceTeacher, place: str, *, vocabulary: int, sequence_length: int, processes: int
) -> tuple[HuggingFaceSource, str]:
    """The model and its identity: of a local directory its content, of a hub id its name and revision.
    `place` is the model's path in the recipe.

    Raises:
        EnvironmentFault: the path is no directory and no hub id, or the directory lacks a file.
        UsageError: its processes do not make whole copies, or its code may change unseen.
    """
    folder = Path(teacher.path)
    if folder.is_dir():
        require_files(folder, f"{place}.path", gguf=teacher.gguf_file)
        content = fingerprint_folder(folder if teacher.gguf_file is None else folder / teacher.gguf_file)
        path, named = str(folder.absolute()), {"content": content}
    elif is_hub_id(teacher.path):
        if teacher.trust_remote_code is not None and teacher.revision is None:
            raise UsageError(
                f"{place}: code of {teacher.path} may run, and its revision is not pinned",
                remedy="add `revision:` with the commit whose code was read",
            )
        path, named = teacher.path, {"path": teacher.path, "revision": teacher.revision or "main"}
    else:
        raise EnvironmentFault(
            f"{place}.path: {teacher.path!r} is neither a directory nor a hub id",
            remedy="name a directory with config.json and weights, or a hub id such as zai-org/glm-4-9b-hf",
        )
    if processes % teacher.shard:
        raise UsageError(
            f"{place}.shard: {teacher.shard} processes hold the model together, and there are {processes}",
            remedy="start a multiple of it (`--processes`, or the profile's nodes)",
        )
    gguf = {} if teacher.gguf_file is None else {"gguf_file": teacher.gguf_file}
    known = shape_of(path, teacher.gguf_file)
    source = HuggingFaceSource.model_construct(
        path=path,
        revision=teacher.revision,
        dtype=teacher.dtype,
        gguf_file=teacher.gguf_file,
        code=teacher.trust_remote_code is not None,
        shard=teacher.shard,
        architecture=known.architecture if known else teacher.architecture,
        vocabulary=vocabulary,
        sequence_length=sequence_length,
        place=place,
    )
    return source, identity({"teacher": "huggingface", "dtype": teacher.dtype, **named, **gguf})


class Stored(NamedTuple):
    """What a logit store holds, and how: as the fields of jobs and identities are called."""

    truncation: Truncation
    codec: Codec | Literal["sampled"]
    columns: tuple[Column, ...]
    shard_sequences: int


def what_is_stored(pupil: Pupil, teacher: Teacher, logits: OfflineLogits | OnlineLogits) -> Stored:
    """Of the teacher's distributions, for this pupil."""
    columns: set[Any] = {*logits.columns, *required_columns(pupil.objective)}
    return Stored(
        truncation=logits.keep or teacher.truncation,
        codec="sampled" if isinstance(teacher.truncation, Sample) else logits.codec or DEFAULT_CODEC,
        columns=tuple(sorted(columns)),
        shard_sequences=logits.shard_sequences,
    )


def online_capture(recipe: Recipe, pupil: Pupil, vocabulary: int) -> OnlineCapture | None:
    """What the training of the pupil's teacher stores of its own distributions; None: nothing.

    Raises:
        UsageError: a process of that training has a part of a model or of a sequence only.
    """
    teacher = pupil.teacher
    if teacher is None or not pupil.distils or not isinstance(teacher.logits, OnlineLogits):
        return None
    assert isinstance(teacher.model, PretrainedHere), "PD133 refuses it"
    training = teacher.model.training
    spread = training.parallelism
    if {spread.tensor, spread.pipeline, spread.context} != {1}:
        raise UsageError(
            f"{pupil.field('teacher.model.training.parallelism')}: the teacher stores its distributions while it is "
            "trained, and a process that holds a part of a model, or of a sequence, sees a part of them",
            remedy="set tensor, pipeline and context to 1, or its logits.mode to offline",
        )
    return OnlineCapture.model_construct(
        from_step=teacher.logits.from_step,
        first_sample=(teacher.logits.from_step - 1) * training.batch.global_,
        vocabulary=vocabulary,
        sequence_length=recipe.data.sequence_length,
        **what_is_stored(pupil, teacher, teacher.logits)._asdict(),
    )


def logits_of_any_length(job: CaptureJob, *, filtered: bool) -> str:
    """What names a capture's distributions, however many sequences of them it stores: of the number only as much counts
    as says how all are stored and, where the student's tokens are `filtered` by entropy, which are left out.
    """
    return identities.capture_identity(
        teacher=job.teacher_identity,
        tokens=job.tokens_identity,
        sequences=min(job.sequences, max(job.calibration, QUANTILE_SEQUENCES if filtered else 0)),
        truncation=job.truncation,
        precision=job.precision,
        shard_sequences=job.shard_sequences,
        codec=job.codec,
        columns=job.columns,
        from_step=job.from_step,
    )
