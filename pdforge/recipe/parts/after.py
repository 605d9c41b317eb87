"""`finetune`, `export`, `evaluate` and `expect`: what becomes of the pre-trained student."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pdforge.recipe.parts.base import Model, by_default
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
    """Its name there: `hellaswag`, `mmlu`."""
    shots: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0
    """Solved examples before each question."""


class Evaluate(Model):
    """Accuracy on downstream tasks, beside the held-out loss that is always measured."""

    tasks: Annotated[tuple[EvaluationTask, ...], Field(min_length=1, max_length=1000)]
    """The tasks."""
    limit: Count | None = None
    """Examples of a task; by default all."""


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
