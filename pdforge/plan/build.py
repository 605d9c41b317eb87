"""From resolved recipes to plans: which stages there are, what each needs, and its identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pdforge.errors import UsageError
from pdforge.layout import TRAIN, StageDirectory
from pdforge.plan import identities
from pdforge.plan.after import AfterTraining
from pdforge.plan.batch import split_batch, steps_of
from pdforge.plan.content import absolute, tokenizer_facts
from pdforge.plan.estimate import estimate
from pdforge.plan.extension import extend_runs
from pdforge.plan.initialise import initial_weights
from pdforge.plan.jobs import (
    CaptureJob,
    HuggingFaceSource,
    InitialWeights,
    Job,
    ModelSource,
    OnlineCapture,
    Precision,
    TokenizeJob,
    TrainJob,
)
from pdforge.plan.model import Plan, Stage, shared_directory
from pdforge.plan.profile import Profile
from pdforge.plan.reuse import share_stores
from pdforge.plan.teacher import (
    huggingface_teacher,
    logits_of_any_length,
    online_capture,
    torchtitan_teacher,
    what_is_stored,
)
from pdforge.recipe.models import (
    Corpus,
    HuggingFaceTeacher,
    LiveLogits,
    OnlineLogits,
    PretrainedHere,
    Teacher,
    TeacherModel,
    TorchtitanTeacher,
    Training,
    Truncation,
)
from pdforge.schedules import is_zero
from pdforge.store.corpus import fingerprint, unit_count

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


class _Live(NamedTuple):
    """A teacher that runs beside the student, and the identity of its distributions."""

    source: ModelSource | HuggingFaceSource
    precision: Precision
    identity: str


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
        distils = self.capture or self.live
        before = [self.tokenize, *([self.teacher] if distils and self.teacher else [])]
        stages = [
            *before,
            *([self.capture] if self.capture else []),
            self.train,
            *self.after.stages,
        ]
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
    def teacher(self) -> Stage | None:
        """The stage that pre-trains the teacher, where the recipe asks for one."""
        teacher = self.recipe.teacher
        if teacher is None or not isinstance(teacher.model, PretrainedHere):
            return None
        training = teacher.model.training
        steps = self.steps(training, "teacher.model.training")
        online = self.online
        identity = identities.teacher_identity(
            teacher.model.architecture, training, steps=steps, tokens=self.tokenize.identity, online=online
        )
        job = TrainJob.model_construct(
            kind="pretrain-teacher",
            identity=identity,
            title="pretrain teacher",
            architecture=teacher.model.architecture,
            vocabulary=self.tokenizer.vocabulary,
            sequence_length=self.recipe.data.sequence_length,
            training=training,
            objective=None,
            truncation=None,
            steps=steps,
            tokens=self.output(self.tokenize.directory),
            logits=None,
            online=online,
            device=self.profile.device,
            processes=self.profile.processes,
            output=self.output(shared_directory("pretrain-teacher", identity)),
        )
        return self.shared(job, needs=[self.tokenize], processes=self.profile.processes)

    @cached_property
    def online(self) -> OnlineCapture | None:
        """What the teacher's training stores of its own distributions; None: nothing."""
        return online_capture(self.recipe, self.distilled, self.tokenizer.vocabulary)

    @cached_property
    def distilled(self) -> Teacher | None:
        """The teacher; None where no step gives it weight."""
        if is_zero(self.recipe.objective.alpha):
            return None
        if self.recipe.teacher is None:
            raise UsageError(
                f"{self.loaded.name}: α is not 0 throughout, and there is no teacher",
                remedy="add `teacher`, or set objective.alpha to 0",
            )
        return self.recipe.teacher

    @cached_property
    def live(self) -> _Live | None:
        """The teacher that runs beside the student; None where its distributions are stored."""
        teacher = self.distilled
        if teacher is None or not isinstance(teacher.logits, LiveLogits):
            return None
        source, source_identity = self.teacher_source(teacher.model)
        precision, _ = self.capture_numerics(teacher.model)
        named = identities.live_identity(teacher=source_identity, truncation=teacher.truncation, precision=precision)
        return _Live(source, precision, named)

    @cached_property
    def capture(self) -> Stage | None:
        """The stage that captures the teacher's distributions; None where nothing is stored of them."""
        teacher, training = self.distilled, self.recipe.training
        if teacher is None or isinstance(teacher.logits, LiveLogits):
            return None
        from_step = teacher.logits.from_step if isinstance(teacher.logits, OnlineLogits) else None
        source, source_identity = self.teacher_source(teacher.model)
        precision, micro = self.capture_numerics(teacher.model)
        sequences = min(self.steps(training, "training") * training.batch.global_, self.train_sequences)
        stored = what_is_stored(self.recipe, teacher, teacher.logits)
        identity = identities.capture_identity(
            teacher=source_identity,
            tokens=self.tokenize.identity,
            sequences=sequences,
            precision=precision,
            from_step=from_step,
            **stored._asdict(),
        )
        job = CaptureJob.model_construct(
            identity=identity,
            title="capture logits",
            teacher=source,
            teacher_identity=source_identity,
            tokens=self.output(self.tokenize.directory),
            tokens_identity=self.tokenize.identity,
            sequences=sequences,
            first_sample=self.online.first_sample if self.online else 0,
            from_step=from_step,
            training=str((self.root / self.teacher.directory).absolute()) if self.online and self.teacher else None,
            **stored._asdict(),
            micro=micro,
            device=self.profile.device,
            precision=precision,
            processes=self.profile.processes,
            output=self.output(shared_directory("capture", identity)),
        )
        needs = [self.tokenize, *([self.teacher] if self.teacher else [])]
        return self.shared(job, needs=needs, processes=self.profile.processes)

    @cached_property
    def train(self) -> Stage:
        recipe, capture = self.recipe, self.capture
        directory = f"{self.directory}/{TRAIN}"
        job = TrainJob.model_construct(
            kind="train",
            identity=self.train_identity,
            title=f"train {self.loaded.variant or recipe.recipe}",
            architecture=recipe.student.architecture,
            vocabulary=self.tokenizer.vocabulary,
            sequence_length=recipe.data.sequence_length,
            training=recipe.training,
            objective=recipe.objective,
            truncation=self.distilled.truncation if self.distilled else None,
            steps=self.steps(recipe.training, "training"),
            tokens=self.output(self.tokenize.directory),
            logits=self.output(capture.directory) if capture else None,
            teacher=self.live.source if self.live else None,
            first_sample=self.online.first_sample if self.online else 0,
            teacher_precision=self.live.precision if self.live else None,
            initial=self.initial[0] if self.initial else None,
            kin=self.kin,
            device=self.profile.device,
            processes=self.profile.processes,
            output=self.output(directory),
        )
        teacher = [self.teacher] if self.live and self.teacher else []
        needs = [self.tokenize, *teacher, *([capture] if capture else [])]
        return Stage.of(job, directory=directory, needs=needs, processes=self.profile.processes)

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
            logits=self.capture.identity if self.capture else self.live.identity if self.live else None,
            learnt=self.learnt,
            initial=self.initial[1] if self.initial else None,
        )

    @cached_property
    def learnt(self) -> Truncation | None:
        """What the student reads of its logit store, where that holds more; else None."""
        learnt, job = self.distilled.truncation if self.distilled else None, self.capture and self.capture.job
        return learnt if isinstance(job, CaptureJob) and job.truncation != learnt else None

    @property
    def kin(self) -> str:
        """What the student has in common with those that differ in their length and schedules only."""
        recipe, job = self.recipe, self.capture and self.capture.job
        logits = self.live.identity if self.live else None
        if isinstance(job, CaptureJob):
            logits = logits_of_any_length(job, filtered=recipe.objective.token_filter is not None)
        return identities.kin_identity(
            recipe.student.architecture,
            recipe.training,
            recipe.objective,
            tokens=self.tokenize.identity,
            logits=logits,
            learnt=self.learnt,
            initial=self.initial[1] if self.initial else None,
        )

    @cached_property
    def after(self) -> AfterTraining:
        """What becomes of the student."""
        return AfterTraining(self)

    @property
    def hash(self) -> str:
        return identities.run_hash(self.train_identity, self.recipe, self.after.contents)

    @property
    def directory(self) -> str:
        return f"{self.loaded.name}-{self.hash}"

    def teacher_source(self, model: TeacherModel) -> tuple[ModelSource | HuggingFaceSource, str]:
        """Where the teacher's weights are, and what names them."""
        vocabulary, length = self.tokenizer.vocabulary, self.recipe.data.sequence_length
        if isinstance(model, TorchtitanTeacher):
            return torchtitan_teacher(model, vocabulary=vocabulary, sequence_length=length)
        if isinstance(model, HuggingFaceTeacher):
            processes = self.profile.processes
            return huggingface_teacher(model, vocabulary=vocabulary, sequence_length=length, processes=processes)
        stage = self.teacher
        assert stage is not None
        assert isinstance(stage.job, TrainJob)
        source = ModelSource(
            architecture=model.architecture,
            vocabulary=vocabulary,
            sequence_length=length,
            checkpoint=str(StageDirectory(self.root / stage.directory).checkpoints),
            step=stage.job.steps,
        )
        return source, stage.identity

    def capture_numerics(self, model: TeacherModel) -> tuple[Precision, int]:
        """Precision of the capture, and sequences a device takes at once."""
        if isinstance(model, PretrainedHere):
            return model.training.precision, model.training.batch.micro
        micro = self.recipe.training.batch.micro
        if isinstance(model, HuggingFaceTeacher):
            return model.dtype, micro
        return self.recipe.training.precision, micro

    def steps(self, training: Training, place: str) -> int:
        split_batch(training, self.profile.processes, place=place)
        return steps_of(training, self.recipe.data, place=place)

    def output(self, directory: str) -> str:
        return str(StageDirectory(self.root / directory).output)

    def shared(self, job: Job, *, needs: list[Stage], processes: int) -> Stage:
        return Stage.of(
            job, directory=shared_directory(job.kind, job.identity), needs=needs, processes=processes, shared=True
        )
