"""Searches how a training is best spread over a profile's devices: what fits their memory and takes least time.

Only fields that no identity has are changed: parallelism, micro batch, loss chunks, activation checkpointing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import log
from operator import attrgetter
from typing import NamedTuple

from pdforge.errors import UsageError
from pdforge.plan.batch import split_batch
from pdforge.plan.duration import Rate
from pdforge.plan.fitting import ROOM, replaced
from pdforge.plan.jobs import TrainJob
from pdforge.plan.memory import Memory, stages_of_a_place, training_memory
from pdforge.plan.profile import Profile
from pdforge.plan.step_time import StepTime, step_time
from pdforge.recipe.models import Parallelism, Recipe, Training
from pdforge.recipe.rules import broken

_FIELDS = (
    "parallelism.data_shard",
    "parallelism.data_replicate",
    "parallelism.tensor",
    "parallelism.context",
    "parallelism.pipeline",
    "batch.micro",
    "loss_chunks",
    "activation_checkpointing",
)
_MODES = ("none", "selective", "full")
_MOST_CHUNKS = 64
_MOST_MICRO = 64
_EQUAL = 1.02
"""Step times within this factor count as equal: the model is no better."""


class Candidate(NamedTuple):
    """One way to run a training."""

    job: TrainJob
    words: tuple[str, ...]
    """`FIELD=VALUE` of the recipe, as `--set` takes them; empty: as it is."""
    time: StepTime
    memory: Memory


class Refusal(NamedTuple):
    """Why settings were not considered further, and how many."""

    reason: str
    settings: int


class Tuned(NamedTuple):
    """What was found for one training."""

    asked: Candidate
    """As the recipe has it."""
    asked_fits: bool
    best: tuple[Candidate, ...]
    """Quickest first; of equally quick ones that which changes least, then the quicker, then the smaller."""
    refusals: tuple[Refusal, ...]
    nearest: Candidate | None
    """Where nothing fits: what needs least memory."""


def tune(job: TrainJob, recipe: Recipe, profile: Profile, rate: Rate, *, most: int = 5) -> Tuned:
    """The best ways to run a training of a recipe on a profile.

    Args:
        job: the training, planned for that profile.
        recipe: that it is of.
        profile: its devices; of a CPU only the memory is not looked at.
        rate: what one device reaches.
        most: proposals at most.

    Raises:
        UsageError: the profile does not say how much memory a GPU has, or the FLOPs of a teacher that runs beside the
            student are unknown.
    """
    offered = profile.memory_of_a_gpu
    if profile.device == "cuda" and offered is None:
        raise UsageError(
            f"profile {profile.name!r} does not say what its GPUs are",
            remedy="add `gpu:` to it, or `gpu_memory:` and `peak_flops:`",
        )
    search = _Search(job, recipe, profile, rate, offered if profile.device == "cuda" else None)
    asked = search.candidate(job.training)
    fitting = sorted(search.fitting(), key=attrgetter("time.total"))
    quickest = fitting[0].time.total if fitting else 1.0

    def order(each: Candidate) -> tuple[int, int, int, int]:
        times = each.time.total / quickest
        return int(log(times) / log(_EQUAL)), len(each.words), int(200 * times), each.memory.total

    best = sorted(fitting, key=order)[:most]
    refusals = [Refusal(reason, count) for reason, count in search.refused.most_common()]
    return Tuned(
        asked, not search.too_large(asked.memory), tuple(best), tuple(refusals), None if fitting else search.nearest
    )


class _Search:
    def __init__(self, job: TrainJob, recipe: Recipe, profile: Profile, rate: Rate, offered: int | None) -> None:
        self.job, self.recipe, self.profile, self.rate, self.offered = job, recipe, profile, rate, offered
        self.refused: Counter[str] = Counter()
        self.nearest: Candidate | None = None

    def candidate(self, training: Training) -> Candidate:
        job = self.job.model_copy(update={"training": training})
        time = step_time(job, self.profile, self.rate.flops)
        if time is None:
            raise UsageError(
                f"{self.job.title}: the FLOPs of the teacher beside the student are unknown",
                remedy="add its `architecture` to the recipe's `teacher.model`",
            )
        return Candidate(job, self._words(training), time, training_memory(job))

    def too_large(self, memory: Memory) -> bool:
        return self.offered is not None and memory.total > (1 - ROOM) * self.offered

    def fitting(self) -> Iterator[Candidate]:
        """All settings that obey the rules and fit, each with as few loss chunks as it can have."""
        for spread in self._spreads():
            for micro in self._micro_batches(spread):
                training = self.job.training
                batch = training.batch.model_copy(update={"micro": micro})
                training = training.model_copy(update={"parallelism": spread, "batch": batch})
                if reason := self._broken_rule(training):
                    self.refused[reason] += 1
                    continue
                for mode in _MODES:
                    yield from self._first_that_fits(training.model_copy(update={"activation_checkpointing": mode}))

    def _first_that_fits(self, training: Training) -> Iterator[Candidate]:
        for chunks in self._chunks(training):
            found = self.candidate(training.model_copy(update={"loss_chunks": chunks}))
            if not self.too_large(found.memory):
                yield found
                return
            if self.nearest is None or found.memory.total < self.nearest.memory.total:
                self.nearest = found
        self.refused["more memory than a GPU has"] += 1

    def _spreads(self) -> Iterator[Parallelism]:
        """What is asked for, and on GPUs all powers of two as degrees, tensor parallelism within a node."""
        asked = self.job.training.parallelism
        yield asked
        if self.profile.device == "cuda":
            yield from (spread for spread in self._powers_of_two(asked) if spread != asked)

    def _powers_of_two(self, asked: Parallelism) -> Iterator[Parallelism]:
        processes = self.job.processes
        for tensor in _powers(self.profile.processes_per_node):
            for context in _powers(8):
                for pipeline in _powers(min(16, self.job.architecture.layers)):
                    model = tensor * context * pipeline
                    if processes % model:
                        continue
                    for replicas in _powers(processes // model):
                        if (processes // model) % replicas == 0:
                            shard = processes // model // replicas
                            yield asked.model_copy(
                                update={
                                    "data_shard": shard if asked.data_shard == shard else "auto",
                                    "data_replicate": replicas,
                                    "tensor": tensor,
                                    "context": context,
                                    "pipeline": pipeline,
                                }
                            )

    def _micro_batches(self, spread: Parallelism) -> Iterator[int]:
        batch = self.job.training.batch
        ranks = self.job.processes // (spread.tensor * spread.context * spread.pipeline)
        if batch.global_ % ranks:
            self.refused[f"{batch.global_} sequences do not divide over {ranks} data-parallel GPUs"] += 1
            return
        # as many micro-batches as a pipeline has stages, or it waits more than it works
        least = spread.pipeline_microbatch * spread.pipeline * stages_of_a_place(spread) if spread.pipeline > 1 else 1
        for micro in sorted({*_powers(_MOST_MICRO), batch.micro}):
            if (batch.global_ // ranks) % micro == 0 and micro >= least:
                yield micro

    def _chunks(self, training: Training) -> Iterator[int]:
        """As many as asked for, then more."""
        length, asked = self.job.sequence_length // training.parallelism.context, training.loss_chunks
        for chunks in (asked, *(number for number in _powers(_MOST_CHUNKS) if number > asked)):
            if length % chunks == 0:
                yield chunks

    def _broken_rule(self, training: Training) -> str:
        """The first rule that a recipe with this training breaks; empty: none."""
        if message := broken(replaced(self.recipe, self.job.place.split("."), training)):
            return message
        try:
            split_batch(training, self.job.processes, place=self.job.place)
        except UsageError as error:
            return error.message
        return ""

    def _words(self, training: Training) -> tuple[str, ...]:
        asked = self.job.training
        return tuple(
            f"{self.job.place}.{field}={value}"
            for field in _FIELDS
            if (value := attrgetter(field)(training)) != attrgetter(field)(asked)
        )


def _powers(most: int) -> Iterator[int]:
    """1, 2, 4, … up to `most`."""
    power = 1
    while power <= most:
        yield power
        power *= 2
