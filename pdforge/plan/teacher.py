"""Teachers that come from outside: where their weights are, and what names them."""

from __future__ import annotations

from pathlib import Path

from pdforge.errors import EnvironmentFault
from pdforge.identity import identity
from pdforge.plan.content import fingerprint_folder
from pdforge.plan.initialise import checkpoint_of
from pdforge.plan.jobs import HuggingFaceSource, ModelSource
from pdforge.recipe.hub import is_hub_id
from pdforge.recipe.models import HuggingFaceTeacher, TorchtitanTeacher


def torchtitan_teacher(teacher: TorchtitanTeacher, *, vocabulary: int, sequence_length: int) -> tuple[ModelSource, str]:
    """The checkpoint and its identity, which is that of its content.

    Raises:
        EnvironmentFault: there is no such checkpoint.
    """
    checkpoint = checkpoint_of(teacher.path, teacher.step, "teacher.model")
    source = ModelSource(
        architecture=teacher.architecture,
        vocabulary=vocabulary,
        sequence_length=sequence_length,
        checkpoint=str(checkpoint.parent),
        step=teacher.step,
    )
    shape = teacher.architecture.model_dump(mode="json")
    return source, identity({"teacher": "torchtitan", "content": fingerprint_folder(checkpoint), "architecture": shape})


def huggingface_teacher(
    teacher: HuggingFaceTeacher, *, vocabulary: int, sequence_length: int
) -> tuple[HuggingFaceSource, str]:
    """The model and its identity: of a local directory its content, of a hub id its name and revision.

    Raises:
        EnvironmentFault: the path is no directory and no hub id.
    """
    folder = Path(teacher.path)
    if folder.is_dir():
        path, named = str(folder.absolute()), {"content": fingerprint_folder(folder)}
    elif is_hub_id(teacher.path):
        path, named = teacher.path, {"path": teacher.path, "revision": teacher.revision or "main"}
    else:
        raise EnvironmentFault(
            f"teacher.model.path: {teacher.path!r} is neither a directory nor a hub id",
            remedy="name a directory with config.json and weights, or a hub id such as zai-org/glm-4-9b",
        )
    source = HuggingFaceSource(
        path=path,
        revision=teacher.revision,
        dtype=teacher.dtype,
        architecture=teacher.architecture,
        vocabulary=vocabulary,
        sequence_length=sequence_length,
    )
    return source, identity({"teacher": "huggingface", "dtype": teacher.dtype, **named})
