"""What a model learns of its teacher: the stages before its training, and what that training reads of them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pdforge.errors import UsageError
from pdforge.layout import StageDirectory
from pdforge.plan import identities
from pdforge.plan.jobs import (
    CaptureJob,
    FurtherTeacher,
    HuggingFaceSource,
    ModelSource,
    OnlineCapture,
    Precision,
    TrainJob,
)
from pdforge.plan.model import Stage, shared_directory
from pdforge.plan.teacher import (
    huggingface_teacher,
    logits_of_any_length,
    online_capture,
    torchtitan_teacher,
    what_is_stored,
)
from pdforge.recipe.hub import is_hub_id
from pdforge.recipe.models import (
    DistilledHere,
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
from pdforge.recipe.pupils import Pupil

if TYPE_CHECKING:
    from pdforge.plan.build import _Builder


class _Live(NamedTuple):
    """A teacher that runs beside its pupil, and the identity of its distributions."""

    source: ModelSource | HuggingFaceSource
    precision: Precision
    identity: str


class Lesson:
    """The teacher of one pupil, who may be a teacher too: each of a chain has a lesson of its own.

    `before` is an earlier lesson of the same teacher: it is trained once, for both.
    """

    def __init__(self, run: _Builder, pupil: Pupil, before: Lesson | None = None) -> None:
        self.run, self.pupil, self.before = run, pupil, before

    @property
    def stages(self) -> list[Stage]:
        """Those that end before the pupil's training starts, in dependency order."""
        if self.taught is None:
            return []
        above = self.above.stages if self.above else []
        return [*above, *([self.teacher] if self.teacher else []), *([self.capture] if self.capture else [])]

    @property
    def needs(self) -> list[Stage]:
        """Stages whose results the pupil's training reads: the logit store, or the live teacher."""
        if self.capture is not None:
            return [self.capture]
        return [self.teacher] if self.live and self.teacher else []

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the pupil's `TrainJob` that say what it learns."""
        return {
            "truncation": self.taught.truncation if self.taught else None,
            "logits": self.store,
            "weight": self.pupil.weight,
            "teacher": self.live.source if self.live else None,
            "teacher_precision": self.live.precision if self.live else None,
            "first_sample": self.first_sample,
        }

    @property
    def further(self) -> FurtherTeacher | None:
        """The same of a pupil's further teacher; None where nothing is learnt of it."""
        if self.store is None or self.taught is None:
            return None
        return FurtherTeacher.model_construct(
            logits=self.store, truncation=self.taught.truncation, weight=self.pupil.weight
        )

    @property
    def store(self) -> str | None:
        """The logit store; None where nothing is stored."""
        return self.run.output(self.capture.directory) if self.capture else None

    @property
    def identity(self) -> str | None:
        """Of the distributions that are learnt; None where none are."""
        return self.capture.identity if self.capture else self.live.identity if self.live else None

    @property
    def identity_of_any_length(self) -> str | None:
        """The same, however many distributions are stored."""
        job = self.capture.job if self.capture else None
        if not isinstance(job, CaptureJob):
            return self.identity
        return logits_of_any_length(job, filtered=self.pupil.objective.token_filter is not None)

    @cached_property
    def learnt(self) -> Truncation | None:
        """What the pupil reads of its logit store, where that holds more; else None."""
        learnt, job = self.taught.truncation if self.taught else None, self.capture and self.capture.job
        return learnt if isinstance(job, CaptureJob) and job.truncation != learnt else None

    @cached_property
    def taught(self) -> Teacher | None:
        """The teacher; None where no step gives it weight."""
        if not self.pupil.distils:
            return None
        if self.pupil.teacher is None:
            raise UsageError(
                f"{self.run.loaded.name}: α is not 0 throughout, and there is no teacher",
                remedy="add `teacher`, or set objective.alpha to 0",
            )
        return self.pupil.teacher

    @cached_property
    def above(self) -> Lesson | None:
        """The lesson of the teacher, where that is itself distilled."""
        assistant = self.pupil.assistant
        return Lesson(self.run, assistant) if assistant else None

    @property
    def depth(self) -> int:
        """How many teachers of the chain are themselves distilled, from its top down to the pupil's."""
        return 1 + self.above.depth if self.above and self.above.taught else 0

    @property
    def place(self) -> str:
        """Path of the teacher's model in the recipe."""
        return self.pupil.field("teacher.model")

    @cached_property
    def teacher(self) -> Stage | None:
        """The stage that trains the teacher, where the recipe asks for one."""
        if self.before is not None:
            return self.before.teacher
        run, teacher, above = self.run, self.pupil.teacher, self.above
        if teacher is None or not isinstance(teacher.model, PretrainedHere | DistilledHere):
            return None
        model, training, online = teacher.model, teacher.model.training, self.online
        distils = isinstance(model, DistilledHere) and above is not None and above.taught is not None
        steps = run.steps(training, f"{self.place}.training")
        identity = identities.teacher_identity(
            model.architecture,
            training,
            steps=steps,
            tokens=run.tokenize.identity,
            online=online,
            objective=model.objective if distils and isinstance(model, DistilledHere) else None,
            logits=above.identity if above else None,
            learnt=above.learnt if above else None,
        )
        job = TrainJob.model_construct(
            kind="pretrain-teacher",
            identity=identity,
            title=f"{'distil' if distils else 'pretrain'} {self.name}",
            place=f"{self.place}.training",
            architecture=model.architecture,
            vocabulary=run.tokenizer.vocabulary,
            sequence_length=run.recipe.data.sequence_length,
            training=training,
            objective=model.objective if distils and isinstance(model, DistilledHere) else None,
            steps=steps,
            tokens=run.output(run.tokenize.directory),
            online=online,
            device=run.profile.device,
            processes=run.profile.processes,
            output=run.output(shared_directory("pretrain-teacher", identity)),
            **(above.fields if above else {"truncation": None, "logits": None}),
        )
        needs = [run.tokenize, *(above.needs if above else [])]
        return run.shared(job, needs=needs, processes=run.profile.processes)

    @property
    def name(self) -> str:
        """What a person calls the teacher: `teacher`, `assistant`, `assistant 2` of two, counted from the top; of
        several teachers `teacher 1` and so on.
        """
        of, _, number = self.pupil.place.rpartition(".")
        if of == "teachers":
            return f"teacher {int(number) + 1}"
        if of == "finetune":
            return "teacher of fine-tuning"
        return "teacher" if self.depth == 0 else "assistant" if self.depth == 1 else f"assistant {self.depth}"

    @property
    def origin(self) -> str:
        """What names the teacher, and what of it was learnt; empty: nothing is learnt of any."""
        if self.taught is None:
            return ""
        model = self.taught.model
        _, named = self.source(model)
        said: list[str] = [model.kind]
        if isinstance(model, HuggingFaceTeacher):
            # of a directory here its name alone: a card is read elsewhere
            said += [model.path if is_hub_id(model.path) else Path(model.path).name]
            said += [f"at revision {model.revision}"] if model.revision else []
        return f"{' '.join(said)}, identity {named}; distributions {self.identity}"

    @cached_property
    def online(self) -> OnlineCapture | None:
        """What the teacher's training stores of its own distributions; None: nothing."""
        return online_capture(self.run.recipe, self.pupil, self.run.tokenizer.vocabulary)

    @property
    def first_sample(self) -> int:
        """The first sample that the pupil reads."""
        return self.online.first_sample if self.online else 0

    @cached_property
    def live(self) -> _Live | None:
        """The teacher that runs beside its pupil; None where its distributions are stored."""
        teacher = self.taught
        if teacher is None or not isinstance(teacher.logits, LiveLogits):
            return None
        source, source_identity = self.source(teacher.model)
        precision, _ = self.numerics(teacher.model)
        named = identities.live_identity(teacher=source_identity, truncation=teacher.truncation, precision=precision)
        return _Live(source, precision, named)

    @cached_property
    def capture(self) -> Stage | None:
        """The stage that captures the teacher's distributions; None where nothing is stored of them."""
        run, teacher, training = self.run, self.taught, self.pupil.training
        if teacher is None or isinstance(teacher.logits, LiveLogits):
            return None
        from_step = teacher.logits.from_step if isinstance(teacher.logits, OnlineLogits) else None
        source, source_identity = self.source(teacher.model)
        self._require_one_job(teacher.model)
        precision, taken = self.numerics(teacher.model)
        steps = run.steps(training, f"{self.pupil.path}training")
        sequences = min(steps * training.batch.global_, run.train_sequences)
        stored = what_is_stored(self.pupil, teacher, teacher.logits)
        identity = identities.capture_identity(
            teacher=source_identity,
            tokens=run.tokenize.identity,
            sequences=sequences,
            precision=precision,
            from_step=from_step,
            **stored._asdict(),
        )
        job = CaptureJob.model_construct(
            identity=identity,
            title="capture logits" if self.name == "teacher" else f"capture logits of {self.name}",
            teacher=source,
            teacher_identity=source_identity,
            tokens=run.output(run.tokenize.directory),
            tokens_identity=run.tokenize.identity,
            sequences=sequences,
            first_sample=self.first_sample,
            from_step=from_step,
            training=str((run.root / self.teacher.directory).absolute()) if self.online and self.teacher else None,
            **stored._asdict(),
            micro=taken.at_once,
            place=taken.place,
            device=run.profile.device,
            precision=precision,
            processes=run.profile.processes,
            output=run.output(shared_directory("capture", identity)),
        )
        needs = [run.tokenize, *([self.teacher] if self.teacher else [])]
        return run.shared(job, needs=needs, processes=run.profile.processes)

    def source(self, model: TeacherModel) -> tuple[ModelSource | HuggingFaceSource, str]:
        """Where the teacher's weights are, and what names them."""
        run = self.run
        vocabulary, length = run.tokenizer.vocabulary, run.recipe.data.sequence_length
        if isinstance(model, TorchtitanTeacher):
            return torchtitan_teacher(model, self.place, vocabulary=vocabulary, sequence_length=length)
        if isinstance(model, HuggingFaceTeacher):
            processes = run.profile.processes
            return huggingface_teacher(
                model, self.place, vocabulary=vocabulary, sequence_length=length, processes=processes
            )
        stage = self.teacher
        assert stage is not None
        assert isinstance(stage.job, TrainJob)
        source = ModelSource.model_construct(
            architecture=model.architecture,
            vocabulary=vocabulary,
            sequence_length=length,
            checkpoint=str(StageDirectory(run.root / stage.directory).checkpoints),
            step=stage.job.steps,
            place=self.place,
        )
        return source, stage.identity

    def _require_one_job(self, model: TeacherModel) -> None:
        """Refuse to capture from a teacher whose processes need each other as a job array, whose tasks are alone."""
        tasks = self.run.profile.capture_tasks
        if isinstance(model, HuggingFaceTeacher) and model.shard > 1 and tasks > 1:
            raise UsageError(
                f"{self.place}.shard: {model.shard} processes hold the model together, and profile "
                f"{self.run.profile.name} captures as an array of {tasks} tasks that do not know of each other",
                remedy="set capture_tasks: 1 in the profile, and nodes or processes as many as the capture is to have",
            )

    def numerics(self, model: TeacherModel) -> tuple[Precision, _Taken]:
        """Precision of the teacher, and the sequences that a device takes at once: as in the training of its own that
        it had here, else in its pupil's.
        """
        if isinstance(model, PretrainedHere | DistilledHere):
            return model.training.precision, _Taken.of(model.training, f"{self.place}.training")
        training = self.pupil.training
        taken = _Taken.of(training, f"{self.pupil.path}training")
        return model.dtype if isinstance(model, HuggingFaceTeacher) else training.precision, taken


class _Taken(NamedTuple):
    """Sequences that a device takes at once, and the field that says it."""

    at_once: int
    place: str

    @classmethod
    def of(cls, training: Training, place: str) -> _Taken:
        spread = training.parallelism
        if spread.pipeline > 1:  # its micro batch is as large as it is to fill the pipeline
            return cls(spread.pipeline_microbatch, f"{place}.parallelism.pipeline_microbatch")
        return cls(training.batch.micro, f"{place}.batch.micro")
