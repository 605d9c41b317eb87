"""From resolved recipes to plans: which stages there are, what each needs, and its identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pdforge.errors import UsageError
from pdforge.layout import TRAIN, StageDirectory
from pdforge.plan import identities
from pdforge.plan.after import AfterTraining
from pdforge.plan.batch import split_batch, steps_of
from pdforge.plan.content import absolute, tokenizer_facts
from pdforge.plan.estimate import estimate
from pdforge.plan.extension import extend_runs
from pdforge.plan.identities import Taught
from pdforge.plan.initialise import initial_weights
from pdforge.plan.jobs import (
    InitialWeights,
    Job,
    TokenizeJob,
    TrainJob,
)
from pdforge.plan.lesson import Lesson
from pdforge.plan.model import Plan, Stage, shared_directory
from pdforge.plan.profile import Profile
from pdforge.plan.reuse import share_stores
from pdforge.recipe.models import (
    Corpus,
    Training,
)
from pdforge.recipe.pupils import student_of
from pdforge.store.corpus_files import fingerprint, unit_count

if TYPE_CHECKING:
    from pdforge.recipe.load import LoadedRecipe


def make_plans(
    loaded: Sequence[LoadedRecipe],
    profile: Profile,
    root: Path,
    *,
    fingerprint_of: Callable[[Sequence[Corpus]], str] = fingerprint,
) -> list[Plan]:
    """One plan per loaded recipe, in their order.

    Args:
        loaded: the recipes.
        profile: where they would run.
        root: the storage root.
        fingerprint_of: what names the content of corpora; another than the default where they cannot be read.

    Raises:
        UsageError: a batch does not fit the profile, there are too few tokens, or two variants are the same run.
        EnvironmentFault, StoreError: corpus, tokenizer or teacher is not there.
    """
    fingerprints: dict[Corpus, str] = {}
    plans = [_Builder(one, profile, root, fingerprints, fingerprint_of).plan() for one in loaded]
    seen: dict[str, Plan] = {}
    for plan in plans:
        twin = seen.setdefault(plan.hash, plan)
        if twin is not plan:
            raise UsageError(
                f"{plan.name}: variants {twin.label!r} and {plan.label!r} differ in nothing that changes the result",
                remedy="leave one out; to repeat a run, give it another training.seed",
            )
    return extend_runs(share_stores(plans, root), root)


class _Builder:
    """Builds the stages of one run, each from those it needs."""

    def __init__(
        self,
        loaded: LoadedRecipe,
        profile: Profile,
        root: Path,
        fingerprints: dict[Corpus, str],
        fingerprint_of: Callable[[Sequence[Corpus]], str],
    ) -> None:
        self.loaded, self.recipe, self.profile, self.root = loaded, loaded.recipe, profile, root
        self.fingerprints, self.fingerprint_of = fingerprints, fingerprint_of
        self.tokenizer = tokenizer_facts(self.recipe.data.tokenizer)
        self.train_sequences = self.recipe.data.train_tokens // self.recipe.data.sequence_length

    def plan(self) -> Plan:
        before = [stage for lesson in self.lessons for stage in lesson.stages]
        after = [stage for one in (self.after, *self.earlier) for stage in one.stages]
        every = {stage.key: stage for stage in (self.tokenize, *before, self.train, *after)}
        stages = list(every.values())
        return Plan.model_construct(
            name=self.recipe.recipe,
            variant=self.loaded.variant,
            hash=self.hash,
            directory=self.directory,
            recipe=self.recipe,
            profile=self.profile,
            stages=stages,
            figures=estimate(self.recipe, self.tokenizer.vocabulary, stages),
        )

    @cached_property
    def tokenize(self) -> Stage:
        data = self.recipe.data
        corpus = absolute(data.corpus)
        validation = max(1, data.validation_tokens // data.sequence_length)
        identity = identities.tokenize_identity(
            data,
            corpus=self.fingerprint(corpus),
            tokenizer=self.tokenizer.identity,
            train_sequences=self.train_sequences,
            validation_sequences=validation,
        )
        job = TokenizeJob.model_construct(
            identity=identity,
            title="tokenize",
            corpus=[corpus],
            tokenizer=absolute(data.tokenizer),
            sequence_length=data.sequence_length,
            train_sequences=self.train_sequences,
            validation_sequences=validation,
            seed=data.seed,
            output=self.output(shared_directory("tokenize", identity)),
        )
        return self.shared(job, needs=[], processes=self.tokenize_processes(corpus))

    def fingerprint(self, corpus: Corpus) -> str:
        """What names the content of a corpus."""
        if corpus not in self.fingerprints:
            self.fingerprints[corpus] = self.fingerprint_of([corpus])
        return self.fingerprints[corpus]

    def tokenize_processes(self, corpus: Corpus) -> int:
        """At most one a piece of the corpus; those of whole nodes where they are more than a node's."""
        most, a_node = self.profile.processes, self.profile.processes_per_node
        tasks = min(unit_count([corpus]) or most, most)
        return tasks - tasks % a_node if tasks > a_node else tasks

    @cached_property
    def lessons(self) -> list[Lesson]:
        """What the student learns of each of its teachers."""
        return [Lesson(self, pupil) for pupil in student_of(self.recipe)]

    @cached_property
    def train(self) -> Stage:
        recipe, lessons = self.recipe, self.lessons
        directory = f"{self.directory}/{TRAIN}"
        job = TrainJob.model_construct(
            kind="train",
            identity=self.train_identity,
            title=f"train {self.loaded.variant or recipe.recipe}",
            place="training",
            architecture=recipe.student.architecture,
            vocabulary=self.tokenizer.vocabulary,
            sequence_length=recipe.data.sequence_length,
            training=recipe.training,
            objective=recipe.objective,
            steps=self.steps(recipe.training, "training"),
            tokens=self.output(self.tokenize.directory),
            initial=self.initial[0] if self.initial else None,
            evaluated=self.steps_evaluated,
            kin=self.kin,
            device=self.profile.device,
            processes=self.profile.processes,
            output=self.output(directory),
            also=tuple(each for lesson in lessons[1:] if (each := lesson.further)),
            **lessons[0].fields,
        )
        needs = {stage.key: stage for lesson in lessons for stage in lesson.needs}
        return Stage.of(
            job, directory=directory, needs=[self.tokenize, *needs.values()], processes=self.profile.processes
        )

    @cached_property
    def initial(self) -> tuple[InitialWeights, str] | None:
        """The weights that the student starts from, and their identity; None where they are drawn."""
        student = self.recipe.student
        if student.initialise is None:
            return None
        return initial_weights(student.initialise, student.architecture, self.tokenizer.vocabulary)

    @cached_property
    def train_identity(self) -> str:
        recipe = self.recipe
        return identities.train_identity(
            recipe.student.architecture,
            recipe.training,
            recipe.objective,
            steps=self.steps(recipe.training, "training"),
            tokens=self.tokenize.identity,
            logits=self.lessons[0].identity,
            learnt=self.lessons[0].learnt,
            several=self.several([lesson.identity for lesson in self.lessons]),
            initial=self.initial[1] if self.initial else None,
        )

    @property
    def kin(self) -> str:
        """What the student has in common with those that differ in their length and schedules only."""
        recipe = self.recipe
        return identities.kin_identity(
            recipe.student.architecture,
            recipe.training,
            recipe.objective,
            tokens=self.tokenize.identity,
            logits=self.lessons[0].identity_of_any_length,
            learnt=self.lessons[0].learnt,
            several=self.several([lesson.identity_of_any_length for lesson in self.lessons]),
            initial=self.initial[1] if self.initial else None,
        )

    def several(self, logits: Sequence[str | None]) -> list[Taught]:
        """What names each teacher's distributions, `logits`, with its weight; nothing of a student with one teacher."""
        if len(self.lessons) == 1 or self.lessons[0].taught is None:
            return []
        return [
            Taught(named or "", lesson.pupil.weight, lesson.learnt)
            for named, lesson in zip(logits, self.lessons, strict=True)
        ]

    @cached_property
    def after(self) -> AfterTraining:
        """What becomes of the student."""
        return AfterTraining(self)

    @property
    def earlier(self) -> list[AfterTraining]:
        """The same of the student as it was at the steps that are evaluated."""
        return [AfterTraining(self, step) for step in self.steps_evaluated]

    @property
    def steps_evaluated(self) -> tuple[int, ...]:
        """Steps before the end of which the student is measured."""
        return self.recipe.evaluate.steps if self.recipe.evaluate else ()

    @property
    def hash(self) -> str:
        return identities.run_hash(self.train_identity, self.after.finetune_identity)

    @property
    def directory(self) -> str:
        return f"{self.loaded.name}-{self.hash}"

    def steps(self, training: Training, place: str) -> int:
        split_batch(training, self.profile.processes, place=place)
        return steps_of(training, self.recipe.data, place=place)

    def output(self, directory: str) -> str:
        return str(StageDirectory(self.root / directory).output)

    def shared(self, job: Job, *, needs: list[Stage], processes: int) -> Stage:
        return Stage.of(
            job, directory=shared_directory(job.kind, job.identity), needs=needs, processes=processes, shared=True
        )
