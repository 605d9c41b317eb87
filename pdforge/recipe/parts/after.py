"""`finetune`, `export`, `evaluate` and `expect`: what becomes of the pre-trained student."""

from typing import Annotated, Literal

from pydantic import Field

from pdforge.recipe.parts.base import Model
from pdforge.recipe.parts.training import Training
from pdforge.recipe.units import Count, Real, Text


class Instructions(Model):
    """Instructions with their answers: JSON Lines, one pair a row."""

    path: Text
    """A file or glob, local or any fsspec URL (`s3://…`)."""
    prompt: Text = "prompt"
    """The key that holds the instruction, which carries no loss."""
    response: Text = "response"
    """The key that holds the answer: the loss is on its tokens only."""


class Finetune(Model):
    """Supervised fine-tuning after pre-training; the paper takes 10B tokens of instructions and 10B of further text."""

    instructions: Instructions
    """What is learnt."""
    instruction_tokens: Count
    """Tokens of instructions and answers."""
    text_tokens: Count | None = None
    """Tokens of further pre-training text that are mixed in; by default none."""
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
