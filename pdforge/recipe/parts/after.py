"""`finetune`, `export`, `evaluate` and `expect`: what becomes of the pre-trained student."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pdforge.recipe.parts.base import Model, by_default
from pdforge.recipe.parts.objective import Objective
from pdforge.recipe.parts.teacher import TeacherBeside
from pdforge.recipe.parts.training import Training
from pdforge.recipe.units import Count, Real, Size, Text


class JsonLinesConversations(Model):
    """JSON Lines, one conversation a row; `.gz` and `.zst` are read as they are."""

    kind: Literal["jsonl"] = "jsonl"
    path: Text
    """A file or glob, local or any fsspec URL (`s3://…`)."""
    messages: Text = "messages"
    """The key that holds the turns: a list of `{role, content}`."""


class ParquetConversations(Model):
    """Parquet files, one conversation a row."""

    kind: Literal["parquet"]
    path: Text
    """A file or glob, local or any fsspec URL (`s3://…`)."""
    messages: Text = "messages"
    """The column that holds the turns: a list of `{role, content}`."""


class HuggingFaceConversations(Model):
    """A data set of the Hugging Face hub, one conversation a row."""

    kind: Literal["huggingface"]
    path: Text
    """A hub id such as `HuggingFaceTB/smoltalk`."""
    name: Text | None = None
    """Its configuration, where it has several."""
    split: Text = "train"
    """The split that conversations are taken from."""
    revision: Text | None = None
    """Git revision; without one the data may change under a finished run."""
    messages: Text = "messages"
    """The column that holds the turns: a list of `{role, content}`."""


class StandardLibraryConversations(Model):
    """Questions about the functions of Python's standard library, answered by their docstrings: conversations that
    every machine has.
    """

    kind: Literal["python-stdlib"]
    bytes: Size = 12_000_000
    """Take source files, in a fixed pseudo-random order, until this many bytes are reached."""


Instructions = Annotated[
    JsonLinesConversations | ParquetConversations | HuggingFaceConversations | StandardLibraryConversations,
    Field(discriminator="kind"),
    BeforeValidator(by_default("kind", "jsonl")),
]
"""Conversations, one a row. Every one needs a turn of the assistant: these turns are what is learnt."""


class Finetune(Model):
    """Supervised fine-tuning after pre-training; the paper takes 10B tokens of instructions and 10B of further text."""

    instructions: Instructions
    """The conversations. The loss is on the assistant's turns only."""
    template: Text | None = None
    """Chat template (Jinja, as transformers has it) that makes text of a conversation; by default the tokenizer's."""
    instruction_tokens: Count
    """Tokens of conversations, the assistant's and all others; of those read in several `training.epochs` each time
    counts."""
    text_tokens: Count | None = None
    """Tokens of further pre-training text that are mixed in: those of `data` that `training` has not read. By default
    none."""
    objective: Objective | None = None
    """What is minimised where a teacher takes part, as in pre-training; tokens without a loss, such as questions, count
    in neither term. By default the cross-entropy alone."""
    teacher: TeacherBeside | None = None
    """Whose distributions the objective compares with; by default those of the recipe's `teacher`. Both run beside the
    student, whatever `teacher.logits` says: the store does not hold these tokens."""
    training: Training
    """How the student is trained; its tokens are the two above."""


class Export(Model):
    """The finished student in a format that others read."""

    format: Literal["huggingface"] = "huggingface"
    """A directory with configuration, safetensors and tokenizer."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of the weights."""


class EvaluationTask(Model):
    """One task of the Language Model Evaluation Harness."""

    task: Text
    """Its name there: `hellaswag`, `mmlu`; or the name of one in `include`, or of one that pdforge brings along."""
    shots: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0
    """Solved examples before each question."""
    name: Text | None = None
    """What reports and `expect` call it; by default the task's own name."""
    metric: Text | None = None
    """What counts of that which it measures, as the harness calls it: `acc_norm`, or with its filter
    `exact_match,flexible-extract`. By default the first of `acc`, `exact_match`, `acc_norm`, else its first."""

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.name or self.task


_PAPER: tuple[dict[str, Any], ...] = (
    # the values of the paper's table are those of normalised accuracy for models of such a size
    {"task": "hellaswag", "metric": "acc_norm"},
    {"task": "winogrande"},
    {"task": "piqa"},
    # our reading of "KBQA": questions about the knowledge base Freebase
    {"task": "webqs", "name": "kbqa"},
    # the harness's own has five solved examples a subject
    {"task": "pdforge_mmlu", "name": "mmlu", "shots": 6},
    {"task": "pdforge_c3", "name": "c3", "shots": 5},
    {"task": "ceval-valid", "name": "ceval", "shots": 5},
    {"task": "gsm8k", "shots": 8},
)
SUITES = {"paper": tuple(EvaluationTask.model_construct(**row) for row in _PAPER)}
"""`paper`: arXiv 2410.16215, section 2.3, with its shots; names are those of its tables in `expect`."""


class Evaluate(Model):
    """Calibration and held-out loss of the finished student, and its accuracy on downstream tasks."""

    suite: Literal["paper"] | None = None
    """Tasks of a publication, before `tasks`: `paper` stands for the eight of arXiv 2410.16215 with its shots."""
    tasks: Annotated[tuple[EvaluationTask, ...], Field(max_length=1000)] = ()
    """Further tasks. They are asked of the exported model: `export` writes it."""
    include: Text | None = None
    """A folder with task files of one's own, as the harness reads them; paths in them count from the folder."""
    limit: Annotated[Count, Field(ge=2)] | None = None
    """Examples of a task; by default all."""
    batch: Count = 8
    """Examples that the model takes at once."""
    at: Annotated[tuple[Count, ...], Field(max_length=1000)] = ()
    """Steps of the student's training of which it is measured as well: as it was there, fine-tuned and exported like
    the finished one. Their checkpoints are kept."""

    @property
    def steps(self) -> tuple[int, ...]:
        """`at`, each step once, rising."""
        return tuple(sorted(set(self.at)))

    @property
    def all_tasks(self) -> tuple[EvaluationTask, ...]:
        """The suite's, then the others."""
        return (*(SUITES[self.suite] if self.suite else ()), *self.tasks)


class Expectation(Model):
    """What a run should reach: one row of a table. The report sets the results beside it."""

    source: Text
    """Who says so: a table of a paper, an earlier run."""
    step: Count | None = None
    """Step of the student's training that the values are of; by default the last one."""
    values: Annotated[dict[Text, Real], Field(min_length=1, max_length=1000)]
    """By metric: `heldout_loss`, or the name of a task or of a mean over tasks."""
    tolerance: Annotated[Real, Field(ge=0)] | None = None
    """How far from a value a result may be; by default that is not judged."""
