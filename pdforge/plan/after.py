"""What becomes of a trained student: fine-tuning on conversations, export, evaluation."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pdforge.errors import EnvironmentFault, UsageError
from pdforge.layout import EVALUATE, EXPORT, FINETUNE, HUGGINGFACE, TOKENIZER_FILE, StageDirectory
from pdforge.plan import identities
from pdforge.plan.batch import split_batch
from pdforge.plan.content import absolute, fingerprint_texts
from pdforge.plan.jobs import (
    ConversationMix,
    EvaluateJob,
    ExportJob,
    InitialWeights,
    ModelSource,
    TokenizeJob,
    TrainJob,
)
from pdforge.plan.lesson import Lesson
from pdforge.plan.model import Stage, shared_directory
from pdforge.recipe.dump import dump_recipe
from pdforge.recipe.models import (
    Corpus,
    Finetune,
    HuggingFaceCorpus,
    Instructions,
    JsonLinesCorpus,
    ParquetCorpus,
    PretrainedTokenizer,
    StandardLibraryCorpus,
)
from pdforge.recipe.pupils import finetuned

if TYPE_CHECKING:
    from pdforge.plan.build import _Builder

_HELD_OUT = 100
"""One conversation token in so many is held out."""


class AfterTraining:
    """The stages behind the student's training, of one run: of the finished student, or of one step of it."""

    def __init__(self, run: _Builder, step: int | None = None) -> None:
        self.run, self.recipe, self.profile, self.step = run, run.recipe, run.profile, step
        self.label = run.loaded.variant or run.recipe.recipe
        if step is not None:
            self.label += f" at step {step:,}"

    @property
    def stages(self) -> list[Stage]:
        """Those that the recipe asks for, in dependency order."""
        taught = self.lesson.stages if self.lesson else []
        after = (self.conversations, self.finetune, self.export, self.evaluate)
        return [*taught, *(stage for stage in after if stage)]

    @property
    def student(self) -> Stage:
        """The stage that leaves the student."""
        return self.finetune or self.run.train

    @property
    def student_identity(self) -> str:
        """Names the student."""
        return self.finetune_identity or self.pretrained_identity

    @property
    def pretrained_identity(self) -> str:
        """Names the student before a fine-tuning."""
        train = self.run.train_identity
        return train if self.step is None else identities.student_at_identity(train, self.step)

    def directory(self, name: str) -> str:
        """Of a stage, relative to the storage root."""
        return f"{self.run.directory}/{name}" + ("" if self.step is None else f"-at-{self.step}")

    @cached_property
    def mix(self) -> _Mix | None:
        """How many samples a fine-tuning reads of what; None without one."""
        finetune = self.recipe.finetune
        if finetune is None:
            return None
        split_batch(finetune.training, self.profile.processes, place="finetune.training")
        return _mix(finetune, self.recipe.data.sequence_length)

    @cached_property
    def conversations(self) -> Stage | None:
        """The stage that makes a token store of the conversations."""
        finetune, mix, tokenize = self.recipe.finetune, self.mix, self.run.tokenize
        if finetune is None or mix is None:
            return None
        from pdforge.plan.chat import chat_format  # noqa: PLC0415 - only where a recipe fine-tunes

        data, corpus = self.recipe.data, absolute(_corpus_of(finetune.instructions))
        chat = chat_format(finetune, data.tokenizer)
        train = -(-mix.conversations // finetune.training.epochs)
        validation = max(1, train // _HELD_OUT)
        identity = identities.conversations_identity(
            corpus=self.run.fingerprint(corpus),
            chat=chat,
            tokens=tokenize.identity,
            train_sequences=train,
            validation_sequences=validation,
            seed=data.seed,
        )
        job = TokenizeJob.model_construct(
            kind="tokenize-conversations",
            identity=identity,
            title="tokenize conversations",
            corpus=[corpus],
            chat=chat,
            # the very file that the text was tokenized with: of a trained one there is no other
            tokenizer=PretrainedTokenizer(
                path=f"{self.run.output(tokenize.directory)}/{TOKENIZER_FILE}",
                vocabulary=self.run.tokenizer.vocabulary,
                separator=data.tokenizer.separator,
            ),
            sequence_length=data.sequence_length,
            train_sequences=train,
            validation_sequences=validation,
            seed=data.seed,
            output=self.run.output(shared_directory("tokenize-conversations", identity)),
        )
        return self.run.shared(job, needs=[tokenize], processes=self.run.tokenize_processes(corpus))

    @cached_property
    def lesson(self) -> Lesson | None:
        """What fine-tuning learns of a teacher beside the student; None where it has no objective of its own."""
        pupil, before = finetuned(self.recipe), self.run.lessons[0]
        if pupil is None:
            return None
        return Lesson(self.run, pupil, before if before.pupil.place == pupil.place else None)

    @cached_property
    def finetune_identity(self) -> str | None:
        """Names the fine-tuned student; None without a fine-tuning."""
        finetune, conversations, mix, lesson = self.recipe.finetune, self.conversations, self.mix, self.lesson
        if finetune is None or conversations is None or mix is None:
            return None
        return identities.finetune_identity(
            finetune.training,
            finetune.objective,
            train=self.pretrained_identity,
            conversations=conversations.identity,
            logits=lesson.identity if lesson else None,
            steps=mix.steps,
            sequences=mix.conversations,
            text_sequences=mix.text,
        )

    @cached_property
    def finetune(self) -> Stage | None:
        """The stage that fine-tunes the student."""
        recipe, conversations, mix, lesson = self.recipe, self.conversations, self.mix, self.lesson
        identity = self.finetune_identity
        if recipe.finetune is None or conversations is None or mix is None or identity is None:
            return None
        train, tokens = _job(self.run.train), self.run.output(self.run.tokenize.directory)
        text_from = min(train.first_sample + train.steps * train.training.batch.global_, self.run.train_sequences)
        self._require_text(text_from, mix.text)
        directory = self.directory(FINETUNE)
        job = TrainJob.model_construct(
            kind="finetune",
            identity=identity,
            place="finetune.training",
            title=f"fine-tune {self.label}",
            architecture=train.architecture,
            vocabulary=train.vocabulary,
            sequence_length=train.sequence_length,
            training=recipe.finetune.training,
            objective=recipe.finetune.objective,
            steps=mix.steps,
            tokens=tokens,
            initial=InitialWeights.model_construct(
                kind="torchtitan", path=f"{self._checkpoints(self.run.train)}/step-{self.step or train.steps}"
            ),
            conversations=ConversationMix.model_construct(
                store=self.run.output(conversations.directory),
                sequences=mix.conversations,
                text_sequences=mix.text,
                text_from=text_from,
            ),
            device=self.profile.device,
            processes=self.profile.processes,
            output=self.run.output(directory),
            **(lesson.fields if lesson else {"truncation": None, "logits": None}),
        )
        needs = [self.run.tokenize, conversations, self.run.train, *(lesson.needs if lesson else [])]
        return Stage.of(job, directory=directory, needs=needs, processes=self.profile.processes)

    @cached_property
    def export(self) -> Stage | None:
        """The stage that writes the student for other programs."""
        export, conversations = self.recipe.export, self.conversations
        if export is None:
            return None
        directory = self.directory(f"{EXPORT}-{export.dtype}")
        job = ExportJob.model_construct(
            identity=identities.export_identity(export, student=self.student_identity),
            title=f"export {self.label}",
            student=self._source(),
            training=str((self.run.root / self.student.directory).absolute()),
            tokens=self.run.output(self.run.tokenize.directory),
            dtype=export.dtype,
            name=self.run.loaded.name,
            recipe=dump_recipe(self.recipe),
            origin=self._origin(),
            chat=conversations.job.chat if conversations and isinstance(conversations.job, TokenizeJob) else None,
            output=self.run.output(directory),
        )
        return Stage.of(job, directory=directory, needs=[self.run.tokenize, self.student], processes=1)

    @cached_property
    def include(self) -> str | None:
        """What names the content of the recipe's own task files."""
        evaluate = self.recipe.evaluate
        if evaluate is None or evaluate.include is None:
            return None
        folder = Path(evaluate.include)
        if not folder.is_dir():
            raise EnvironmentFault(
                f"evaluate.include: there is no folder {folder}",
                remedy="name one with task files (YAML) of the harness",
            )
        return fingerprint_texts(folder)

    @cached_property
    def evaluate(self) -> Stage | None:
        """The stage that measures the student."""
        evaluate, export, conversations = self.recipe.evaluate, self.export, self.conversations
        if evaluate is None:
            return None
        identity = identities.evaluate_identity(
            evaluate, student=self.student_identity, export=export.identity if export else None, include=self.include
        )
        directory = f"{self.run.directory}/{EVALUATE}-{identity}"
        job = EvaluateJob.model_construct(
            identity=identity,
            title=f"evaluate {self.label}",
            student=self._source(),
            tokens=self.run.output(self.run.tokenize.directory),
            conversations=self.run.output(conversations.directory) if conversations else None,
            model=f"{self.run.output(export.directory)}/{HUGGINGFACE}" if export else None,
            tasks=evaluate.all_tasks,
            include=str(Path(evaluate.include).absolute()) if evaluate.include else None,
            limit=evaluate.limit,
            batch=evaluate.batch,
            at=self.step,
            device=self.profile.device,
            output=self.run.output(directory),
        )
        before = (self.run.tokenize, conversations, self.student, export)
        return Stage.of(job, directory=directory, needs=[stage for stage in before if stage], processes=1)

    def _origin(self) -> dict[str, str]:
        """What names the run, its data and its teachers."""
        conversations, lessons = self.conversations, [*self.run.lessons, *([self.lesson] if self.lesson else [])]
        taught = {"teacher of fine-tuning" if each is self.lesson else each.name: each.origin for each in lessons}
        return {
            "run": self.run.hash,
            "data": f"token store {self.run.tokenize.identity}",
            **({"conversations": f"token store {conversations.identity}"} if conversations else {}),
            **{name: origin for name, origin in taught.items() if origin},
        }

    def _source(self) -> ModelSource:
        """The student."""
        student = _job(self.student)
        return ModelSource.model_construct(
            architecture=student.architecture,
            vocabulary=student.vocabulary,
            sequence_length=student.sequence_length,
            checkpoint=self._checkpoints(self.student),
            step=student.steps if self.finetune else self.step or student.steps,
        )

    def _checkpoints(self, stage: Stage) -> str:
        return str(StageDirectory(self.run.root / stage.directory).checkpoints.absolute())

    def _require_text(self, text_from: int, text: int) -> None:
        """Refuse to mix in more further text than there is."""
        data, there = self.recipe.data, self.run.train_sequences - text_from
        if text > there:
            raise UsageError(
                f"finetune.text_tokens: {text} sequences of text that training has not read are wanted, "
                f"and there are {there}",
                remedy=f"raise data.train_tokens to {(text_from + text) * data.sequence_length:,} or more, and set "
                "training.tokens to what is trained on before",
            )


class _Mix(NamedTuple):
    steps: int
    conversations: int
    """Sequences of conversations."""
    text: int
    """Sequences of text."""


def _mix(finetune: Finetune, sequence_length: int) -> _Mix:
    """The steps of a fine-tuning, and its samples by the shares of its tokens."""
    text_tokens, batch = finetune.text_tokens or 0, finetune.training.batch.global_
    whole = finetune.instruction_tokens + text_tokens
    steps = finetune.training.steps or max(1, (finetune.training.tokens or whole) // (batch * sequence_length))
    text = round(steps * batch * text_tokens / whole)
    return _Mix(steps, steps * batch - text, text)


def _corpus_of(instructions: Instructions) -> Corpus:
    """The conversations as a corpus, whose `text` is the key of the turns."""
    named = instructions.model_dump(exclude={"kind", "messages"})
    match instructions.kind:
        case "jsonl":
            return JsonLinesCorpus(kind="jsonl", text=instructions.messages, **named)
        case "parquet":
            return ParquetCorpus(kind="parquet", text=instructions.messages, **named)
        case "huggingface":
            return HuggingFaceCorpus(kind="huggingface", text=instructions.messages, **named)
        case "python-stdlib":
            return StandardLibraryCorpus(kind="python-stdlib", **named)


def _job(stage: Stage) -> TrainJob:
    assert isinstance(stage.job, TrainJob)
    return stage.job
