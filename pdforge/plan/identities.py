"""Identities of stages and runs: hashes of everything that changes a result, and of nothing else.

What is left out on purpose: names and descriptions; where a stage runs (profile, device, processes, paths); and the
fields of `training` that say how the same numbers are reached (parallelism, micro batch, …). New fields count until
they are named here: an identity too many costs time, one too few serves a wrong result.
"""

from __future__ import annotations

from typing import Any

from pdforge import __version__
from pdforge.identity import identity
from pdforge.recipe.models import Architecture, Data, Objective, TopPTopK, Training
from pdforge.schedules import is_zero
from pdforge.versions import SPMD_TYPES, TORCH, TORCHTITAN

_HOW_NOT_WHAT = {
    "tokens": True,  # counted as whole steps instead
    "batch": {"micro"},
    "parallelism": True,
    "checkpoint": True,
    "activation_checkpointing": True,
    "compile": True,
    "loss_chunks": True,
    "log_every": True,
}


def tokenize_identity(
    data: Data, *, corpus: str, tokenizer: dict[str, Any], train_sequences: int, validation_sequences: int
) -> str:
    """Of a token store. `corpus` is its content's fingerprint, `tokenizer` what names it (`pdforge.plan.content`)."""
    return _stage(
        "tokenize",
        needs=[],
        corpus=corpus,
        tokenizer=tokenizer,
        sequence_length=data.sequence_length,
        train_sequences=train_sequences,
        validation_sequences=validation_sequences,
        seed=data.seed,
    )


def teacher_identity(architecture: Architecture, training: Training, *, steps: int, tokens: str) -> str:
    """Of a teacher that is pre-trained here on the token store `tokens`."""
    return _stage(
        "pretrain-teacher", needs=[tokens], architecture=_shape(architecture), training=_result(training), steps=steps
    )


def capture_identity(
    *, teacher: str, tokens: str, sequences: int, truncation: TopPTopK, precision: str, shard_sequences: int
) -> str:
    """Of a logit store: the first `sequences` samples of `tokens` as `teacher` sees them."""
    return _stage(
        "capture",
        needs=[teacher, tokens],
        sequences=sequences,
        truncation=truncation.model_dump(mode="json"),
        precision=precision,
        shard_sequences=shard_sequences,
    )


def train_identity(
    architecture: Architecture, training: Training, objective: Objective, *, steps: int, tokens: str, logits: str | None
) -> str:
    """Of a student. Where α is 0 at every step, nothing else of the objective matters, and `logits` is None."""
    return _stage(
        "train",
        needs=[tokens, *([logits] if logits else [])],
        architecture=_shape(architecture),
        training=_result(training),
        objective=None if is_zero(objective.alpha) else objective.model_dump(mode="json"),
        steps=steps,
    )


def run_hash(train: str) -> str:
    """Of a run: its last stage's identity, which holds those of all stages before it, and pdforge's own version."""
    return identity({"run": train, "pdforge": __version__})


def _stage(kind: str, *, needs: list[str], **parts: Any) -> str:
    versions = {"torch": list(TORCH), "torchtitan": TORCHTITAN, "spmd_types": SPMD_TYPES}
    return identity({"stage": kind, "needs": needs, "versions": versions, **parts})


def _shape(architecture: Architecture) -> dict[str, Any]:
    """The architecture with its defaults worked out: `kv_heads: 4` and the default of 4 heads are one shape."""
    return {
        **architecture.model_dump(mode="json"),
        "kv_heads": architecture.kv_heads or architecture.heads,
        "head_dim": architecture.head_dim or architecture.hidden // architecture.heads,
    }


def _result(training: Training) -> dict[str, Any]:
    return training.model_dump(mode="json", by_alias=True, exclude=_HOW_NOT_WHAT)  # type: ignore[arg-type]
