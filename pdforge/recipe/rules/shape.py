"""Rules on the shape of models."""

from __future__ import annotations

from collections.abc import Iterator

from pdforge.diagnostics import Severity
from pdforge.recipe.models import Recipe, TopPTopK
from pdforge.recipe.pupils import taught
from pdforge.recipe.rules.parts import architectures, divisors, head_width
from pdforge.recipe.rules.registry import Finding, rule


@rule("PD101", Severity.ERROR, "heads do not divide the hidden size")
def heads_divide_hidden(recipe: Recipe) -> Iterator[Finding]:
    """In the llama3 family a head is hidden / heads wide, so heads must divide hidden and head_dim can only repeat
    that quotient. The qwen3 family projects to heads × head_dim, which is free; without head_dim it falls back to the
    same quotient."""
    for path, shape in architectures(recipe):
        free = shape.family == "qwen3" and shape.head_dim is not None
        if not free and shape.hidden % shape.heads:
            yield Finding(
                f"{path}.heads",
                f"{shape.heads} heads do not divide hidden {shape.hidden}",
                f"heads could be {divisors(shape.hidden, shape.heads)}",
            )
        elif shape.family == "llama3" and head_width(shape) != shape.hidden // shape.heads:
            yield Finding(
                f"{path}.head_dim",
                f"head_dim is {shape.head_dim}; llama3 has hidden/heads = {shape.hidden // shape.heads}",
                "leave head_dim out, or use family qwen3",
            )


@rule("PD102", Severity.ERROR, "key/value heads do not divide the query heads")
def kv_heads_divide_heads(recipe: Recipe) -> Iterator[Finding]:
    """Grouped-query attention gives every key/value head the same number of query heads, so kv_heads must divide
    heads."""
    for path, shape in architectures(recipe):
        if shape.kv_heads is not None and shape.heads % shape.kv_heads:
            yield Finding(
                f"{path}.kv_heads",
                f"kv_heads is {shape.kv_heads}, which does not divide {shape.heads} heads",
                f"kv_heads could be {divisors(shape.heads, shape.kv_heads)}",
            )


@rule("PD103", Severity.ERROR, "head width is odd")
def head_width_even(recipe: Recipe) -> Iterator[Finding]:
    """Rotary positions turn pairs of a head's dimensions, so a head must have an even width."""
    for path, shape in architectures(recipe):
        whole = shape.head_dim is not None or shape.hidden % shape.heads == 0
        if whole and head_width(shape) % 2:
            field = "head_dim" if shape.head_dim else "heads"
            yield Finding(f"{path}.{field}", f"a head is {head_width(shape)} wide; it must be even")


@rule("PD104", Severity.ERROR, "more is kept of a distribution than it has")
def top_k_within_vocabulary(recipe: Recipe) -> Iterator[Finding]:
    """Truncation keeps at most top_k of the vocabulary's tokens; a top_k beyond the vocabulary is surely meant for
    another tokenizer."""
    vocabulary = recipe.data.tokenizer.vocabulary
    for pupil, teacher in taught(recipe):
        truncation = teacher.truncation
        if not isinstance(truncation, TopPTopK) or vocabulary is None or truncation.top_k <= vocabulary:
            continue
        yield Finding(
            pupil.field("teacher.truncation.top_k"),
            f"top_k is {truncation.top_k}; the vocabulary has {vocabulary} tokens",
        )
