"""What a job directory says, typed: `job/job.json` of every stage. Written by compile, read by stages.

All local paths are absolute.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.models import (
    Architecture,
    Codec,
    Column,
    Corpus,
    EvaluationTask,
    Objective,
    Tokenizer,
    TopPTopK,
    Training,
    Truncation,
)

Precision = Literal["float32", "bfloat16", "float16"]
"""Of a teacher's weights and forward pass."""

_CALIBRATION = 8192
"""Positions whose kept ids order a logit store's rank table."""
_CALIBRATION_OF_TABLES = 65536
"""The same for a codec with several tables, each learnt from a part of the positions."""


class Part(BaseModel):
    """Base of plans and jobs: frozen, and an unknown key is an error.

    Validators are built where one is needed, which is to read JSON: that takes longer than making a plan. What makes
    plans and jobs has typed parts already, and uses `model_construct`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _Job(Part):
    identity: str
    """Identity of the stage."""
    title: str
    """What a person calls it: `train pd`."""


class TokenizeJob(_Job):
    """Corpus → token store."""

    kind: Literal["tokenize", "tokenize-conversations"] = "tokenize"
    corpus: list[Corpus]
    """Of conversations its `text` is the key that holds the turns."""
    chat: ChatFormat | None = None
    """How conversations become text; None: the corpus is one of text."""
    tokenizer: Tokenizer
    sequence_length: int
    train_sequences: int
    validation_sequences: int
    seed: int
    output: str


class ModelSource(Part):
    """A model of torchtitan's: its shape, and where its weights are."""

    architecture: Architecture
    vocabulary: int
    sequence_length: int
    checkpoint: str
    """The checkpoint folder (with `step-N` below it), or a directory in Hugging Face's format."""
    step: int | None
    """None: the latter."""
    place: str = "teacher.model"
    """The recipe's field that says so, for messages."""


class HuggingFaceSource(Part):
    """A causal language model of the Hugging Face hub, or a local directory in its format."""

    path: str
    revision: str | None
    dtype: Literal["bfloat16", "float16", "float32"]
    gguf_file: str | None
    code: bool
    """Whether code that comes with the model may run."""
    shard: int
    """Processes that hold one copy of its layers together."""
    architecture: Architecture | None
    """As far as it is known (`pdforge.plan.shapes`), else the recipe's; for estimates only."""
    vocabulary: int
    sequence_length: int
    place: str = "teacher.model"
    """The recipe's field that says so, for messages."""


class InitialWeights(Part):
    """Weights that a training starts from."""

    kind: Literal["huggingface", "torchtitan"]
    path: str
    """A directory in Hugging Face's format, or a checkpoint (`…/step-N`)."""


class Extended(Part):
    """The finished, shorter run that a training goes on from; up to there both have the same numbers."""

    run: str
    """Its directory, relative to the storage root."""
    stage: str
    """The stage directory of its training."""
    step: int
    """Of its checkpoint."""


def kept(truncation: Truncation) -> tuple[float, int]:
    """Top-p and top-k as logit stores and their readers count them: of a sample nothing is cut off, and at most each
    draw is another id.
    """
    return (truncation.top_p, truncation.top_k) if isinstance(truncation, TopPTopK) else (1.0, truncation.draws)


class ConversationMix(Part):
    """The samples of a fine-tuning: conversations, and text that training has not read."""

    store: str
    """Token store of the conversations."""
    sequences: int
    """Samples that are conversations."""
    text_sequences: int
    """Samples that are text."""
    text_from: int
    """First of them in the text's token store."""


class FurtherTeacher(Part):
    """One more teacher of a student that has several."""

    logits: str
    """Its logit store."""
    truncation: Truncation
    """How its distributions are cut."""
    weight: float
    """Of its L_kd."""


class OnlineCapture(Part):
    """Distributions that a teacher's training stores as it goes."""

    from_step: int
    """The first step whose distributions are stored."""
    first_sample: int
    """The first sample of that step."""
    truncation: Truncation
    codec: Codec | Literal["sampled"]
    columns: tuple[Column, ...]
    """In the order of their names."""
    shard_sequences: int
    """Sequences of a shard of the logit store, and at most of a segment on the way there."""
    vocabulary: int
    sequence_length: int


class TrainJob(_Job):
    """A training stage; everything that torchtitan needs is rendered into `train.py` from this."""

    kind: Literal["pretrain-teacher", "train", "finetune"]
    place: str = "training"
    """The part of the recipe that `training` is."""
    architecture: Architecture
    vocabulary: int
    sequence_length: int
    training: Training
    objective: Objective | None
    """None: language modelling only (a teacher)."""
    truncation: Truncation | None
    """How the teacher's distributions are cut; None without a teacher."""
    steps: int
    tokens: str
    """Token store."""
    logits: str | None
    """Logit store; None where no step gives it weight, or the teacher is live."""
    weight: float = 1.0
    """Of that store's teacher."""
    also: tuple[FurtherTeacher, ...] = ()
    """Further teachers, whose distributions are all stored."""
    teacher: ModelSource | HuggingFaceSource | None = None
    """The teacher that runs beside the student; None where its distributions are stored."""
    teacher_precision: Precision | None = None
    """Of that teacher."""
    online: OnlineCapture | None = None
    """What this training stores of its own distributions; None: nothing."""
    first_sample: int = 0
    """The first sample that is read."""
    initial: InitialWeights | None = None
    """None: drawn by `training.seed`."""
    conversations: ConversationMix | None = None
    """What a fine-tuning reads; None: the samples of the token store from its first on."""
    evaluated: tuple[int, ...] = ()
    """Steps before the last of which the student is measured when it is done, rising."""
    kin: str = ""
    """Identity that it shares with students that differ in their length and schedules only."""
    extends: Extended | None = None
    """None: it begins at its first step."""
    device: Literal["cpu", "cuda"]
    processes: int
    output: str

    @property
    def own_steps(self) -> int:
        """Steps that it makes itself: those behind the checkpoint that it goes on from."""
        return self.steps - (self.extends.step if self.extends else 0)

    @property
    def stores(self) -> list[str]:
        """The logit stores that it reads."""
        return [*([self.logits] if self.logits else []), *(each.logits for each in self.also)]

    @property
    def learnt(self) -> list[Truncation]:
        """How the distributions of each store are cut."""
        first = [self.truncation] if self.logits and self.truncation else []
        return [*first, *(each.truncation for each in self.also)]


class CaptureJob(_Job):
    """Teacher over the token store → logit store.

    Any number of processes share the work: rank r of R captures the shards r, r+R, r+2R, …; R may differ from attempt
    to attempt. They need nothing of each other, neither a process group nor to run at one time, so they may be the
    tasks of a job array (RANK and WORLD_SIZE say which). Rank 0 ends last and publishes the store; of an array, whoever
    runs the stage once more as one process. Where a teacher is sharded, its processes form a group and run together.
    """

    kind: Literal["capture"] = "capture"
    teacher: ModelSource | HuggingFaceSource
    teacher_identity: str
    tokens: str
    tokens_identity: str
    sequences: int
    """Samples of the `train` split that are captured, from `first_sample` on."""
    first_sample: int = 0
    truncation: Truncation
    shard_sequences: int
    codec: Codec | Literal["sampled"]
    columns: tuple[Column, ...]
    """In the order of their names."""
    from_step: int | None = None
    """Captured while the teacher is pre-trained, from this step; None: afterwards."""
    training: str | None = None
    """Stage directory of that pre-training."""
    micro: int
    """Sequences that a device takes at once."""
    place: str = ""
    """Field of the recipe that says it."""
    device: Literal["cpu", "cuda"]
    precision: Precision
    processes: int
    output: str

    @property
    def runs_teacher(self) -> bool:
        """Whether the teacher runs here: of an online one its own training has stored what it said."""
        return self.from_step is None

    @property
    def calibration(self) -> int:
        """Samples 0 … n-1 whose kept ids order the store's rank tables; every process computes the same ones."""
        positions = _CALIBRATION_OF_TABLES if self.codec.startswith("context") else _CALIBRATION
        return min(self.sequences, max(1, positions // self.teacher.sequence_length))

    @property
    def shard(self) -> int:
        """Processes that hold one copy of the teacher together."""
        return self.teacher.shard if isinstance(self.teacher, HuggingFaceSource) else 1


class ExportJob(_Job):
    """Student → a directory that other programs read."""

    kind: Literal["export"] = "export"
    student: ModelSource
    training: str
    """Stage directory of the training, for what the model card says of it."""
    tokens: str
    """Token store: its tokenizer goes along, and its held-out text is what both forms are compared on."""
    dtype: Literal["bfloat16", "float16", "float32"]
    name: str
    """Of the run."""
    recipe: str
    """The resolved recipe, as YAML."""
    origin: dict[str, str] = {}
    """For the model card: what names the run, its data and its teachers."""
    chat: ChatFormat | None = None
    """How conversations become text; None: it was not fine-tuned on any."""
    output: str


class EvaluateJob(_Job):
    """Student → held-out loss, calibration, accuracy on tasks."""

    kind: Literal["evaluate"] = "evaluate"
    student: ModelSource
    tokens: str
    """Token store: its held-out text."""
    conversations: str | None = None
    """Token store of the conversations that the student was fine-tuned on: those held out."""
    model: str | None
    """The exported model, which tasks are asked of, and whose card shows the results; None: it is not exported."""
    tasks: tuple[EvaluationTask, ...]
    include: str | None
    """A folder with further task files."""
    limit: int | None
    batch: int
    at: int | None = None
    """Step of the training that the student is of; None: the last."""
    device: Literal["cpu", "cuda"]
    output: str


Job = Annotated[TokenizeJob | TrainJob | CaptureJob | ExportJob | EvaluateJob, Field(discriminator="kind")]
