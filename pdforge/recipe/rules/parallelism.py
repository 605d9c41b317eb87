"""Rules on how a model is spread over devices."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

from pdforge.diagnostics import Severity
from pdforge.recipe.models import Parallelism, Recipe
from pdforge.recipe.rules.parts import divisors, trainings
from pdforge.recipe.rules.registry import Finding, rule

_ATTENTION_BLOCK = 128


@rule("PD121", Severity.ERROR, "tied embeddings with a pipeline")
def no_tied_pipeline(recipe: Recipe) -> Iterator[Finding]:
    """Pipeline parallelism puts the input embedding on the first stage and the output projection on the last: one
    matrix cannot be on both."""
    for path, training, shape, *_ in trainings(recipe):
        if shape.tied_embeddings and training.parallelism.pipeline > 1:
            yield Finding(
                f"{path}.parallelism.pipeline",
                f"pipeline is {training.parallelism.pipeline}, and the model ties its embeddings",
                "set pipeline: 1, or tied_embeddings: false",
            )


@rule("PD122", Severity.ERROR, "more pipeline stages than layers")
def pipeline_within_layers(recipe: Recipe) -> Iterator[Finding]:
    """Every pipeline stage holds at least one whole transformer block; `interleaved_1f1b` has two stages a device."""
    for path, training, shape, *_ in trainings(recipe):
        if training.parallelism.pipeline > 1 and _stages(training.parallelism) > shape.layers:
            yield Finding(
                f"{path}.parallelism.pipeline",
                f"{_stages(training.parallelism)} pipeline stages for {shape.layers} layers",
                "set a smaller pipeline, or take pipeline_schedule: 1f1b",
            )


@rule("PD123", Severity.ERROR, "tensor parallelism does not divide the model")
def tensor_divides(recipe: Recipe) -> Iterator[Finding]:
    """Tensor parallelism splits attention by whole heads, the feed-forward network by columns and the output
    projection by the vocabulary; the loss is computed on the split vocabulary. The degree must divide heads,
    kv_heads, ffn and the vocabulary."""
    for path, training, shape, *_ in trainings(recipe):
        degree = training.parallelism.tensor
        parts = {
            "heads": shape.heads,
            "kv_heads": shape.kv_heads or shape.heads,
            "ffn": shape.ffn,
            "the vocabulary": recipe.data.tokenizer.vocabulary or degree,
        }
        uneven = [f"{name} ({size})" for name, size in parts.items() if size % degree]
        if uneven:
            yield Finding(
                f"{path}.parallelism.tensor",
                f"tensor is {degree}, which does not divide {', '.join(uneven)}",
                f"tensor could be {divisors(gcd(*parts.values()), degree)}",
            )


@rule("PD124", Severity.ERROR, "sequence too uneven for context parallelism")
def context_divides_sequence(recipe: Recipe) -> Iterator[Finding]:
    """Context parallelism cuts a sequence into two parts a device, to balance causal attention, and block-sparse
    attention works in blocks of 128 positions: sequence_length must be a multiple of 2 × 128 × context."""
    for path, training, *_ in trainings(recipe):
        unit = 2 * _ATTENTION_BLOCK * training.parallelism.context
        if training.parallelism.context > 1 and recipe.data.sequence_length % unit:
            yield Finding(
                f"{path}.parallelism.context",
                f"context is {training.parallelism.context}, so sequence_length must be a multiple of {unit}; "
                f"it is {recipe.data.sequence_length}",
                "set context: 1, or lengthen the sequences",
            )


@rule("PD125", Severity.ERROR, "micro batch does not suit the pipeline")
def pipeline_fed(recipe: Recipe) -> Iterator[Finding]:
    """A micro batch passes through the pipeline as micro-batches of `pipeline_microbatch` sequences: it must divide
    into them, and hold one for every device; `interleaved_1f1b` takes them in rounds of one for every device."""
    for path, training, *_ in trainings(recipe):
        spread, micro = training.parallelism, training.batch.micro
        size, schedule = spread.pipeline_microbatch, spread.pipeline_schedule
        round_ = size * spread.pipeline
        unit = round_ if schedule == "interleaved_1f1b" else size
        if spread.pipeline == 1 or (micro % unit == 0 and micro >= round_):
            continue
        fault = f"is no multiple of {unit}" if micro % unit else f"is less than {round_}"
        yield Finding(
            f"{path}.batch.micro",
            f"micro {micro} {fault}: {size} at once through {spread.pipeline} pipeline stages ({schedule})",
            f"micro could be {round_} or {2 * round_}",
        )


def _stages(spread: Parallelism) -> int:
    return spread.pipeline * (2 if spread.pipeline_schedule == "interleaved_1f1b" else 1)
