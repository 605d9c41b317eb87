"""Whether a stage fits into the memory of a profile's GPUs, and the smallest changes that make it fit."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from pdforge.plan.jobs import CaptureJob, HuggingFaceSource, TrainJob
from pdforge.plan.memory import ACTIVATIONS, STATIC, Memory, capture_memory, training_memory
from pdforge.recipe.models import Recipe
from pdforge.recipe.rules import broken

ROOM = 0.05
"""Part of a GPU's memory that arithmetic does not count: the CUDA context, NCCL's buffers, gaps of the allocator."""


class Fit(NamedTuple):
    """How a stage stands to a GPU's memory."""

    memory: Memory
    offered: int

    @property
    def never(self) -> bool:
        """What surely lies there at one time is more than the GPU has."""
        sure = sum(part.bytes for part in self.memory.parts if part.name in (*STATIC, ACTIVATIONS))
        return sure > self.offered

    @property
    def tight(self) -> bool:
        """The peak leaves no room for what is not counted."""
        return self.memory.total > (1 - ROOM) * self.offered


def fit(job: TrainJob, offered: int) -> Fit:
    """Of a training stage whose GPUs have `offered` bytes."""
    return Fit(training_memory(job), offered)


def fit_of_capture(job: CaptureJob, offered: int) -> Fit | None:
    """Of a capture; None where no teacher runs in it, or its shape is unknown."""
    memory = capture_memory(job) if job.runs_teacher else None
    return Fit(memory, offered) if memory else None


def way_to_capture(job: CaptureJob, offered: int) -> str:
    """The change after which a capture fits that costs least, as `field=value`; empty: there is none."""
    for micro in range(job.micro - 1, 0, -1):
        found = fit_of_capture(job.model_copy(update={"micro": micro}), offered)
        if job.micro % micro == 0 and found and not found.tight:
            return f"{job.place}={micro}"
    if isinstance(source := job.teacher, HuggingFaceSource):
        for shard in range(source.shard + 1, job.processes + 1):
            sharded = job.model_copy(update={"teacher": source.model_copy(update={"shard": shard})})
            found = fit_of_capture(sharded, offered)
            if job.processes % shard == 0 and found and not found.tight:
                return f"{source.place}.shard={shard}"
    return ""


def ways_to_fit(job: TrainJob, recipe: Recipe, offered: int) -> list[str]:
    """Single changes after which a training of a recipe fits, and that no rule forbids, as `field=value` below its
    `training`: of each field the first.
    """
    found: dict[str, str] = {}
    for field, value, changed in _changes(job):
        if field in found or fit(changed, offered).tight:
            continue
        if not broken(replaced(recipe, job.place.split("."), changed.training)):
            found[field] = f"{field}={value}"
    return list(found.values())


def replaced(part: BaseModel | tuple[Any, ...], place: Sequence[str], value: object) -> Any:
    """The part of a recipe with another value at that place below it."""
    if not place:
        return value
    name, *below = place
    if isinstance(part, tuple):
        return tuple(replaced(each, below, value) if str(at) == name else each for at, each in enumerate(part))
    return part.model_copy(update={name: replaced(getattr(part, name), below, value)})


def _changes(job: TrainJob) -> Iterator[tuple[str, Any, TrainJob]]:
    """Field, value and what the job becomes with it; of each field the value that costs least first."""
    training = job.training
    yield "loss_chunks", 2 * training.loss_chunks, _with(job, loss_chunks=2 * training.loss_chunks)
    micro, batch = training.batch.micro, training.batch
    for size in range(micro - 1, 0, -1):
        if micro % size == 0:
            yield "batch.micro", size, _with(job, batch=batch.model_copy(update={"micro": size}))
    modes = {"none": ("selective", "full"), "selective": ("full",), "full": ()}[training.activation_checkpointing]
    for mode in modes:
        yield "activation_checkpointing", mode, _with(job, activation_checkpointing=mode)


def _with(job: TrainJob, **fields: Any) -> TrainJob:
    return job.model_copy(update={"training": job.training.model_copy(update=fields)})
