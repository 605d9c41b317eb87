"""Rules on batches, tokens, steps and schedules."""

from __future__ import annotations

from collections.abc import Iterator

from pdforge.diagnostics import Severity
from pdforge.recipe.models import Recipe
from pdforge.recipe.rules.parts import divisors, trainings
from pdforge.recipe.rules.registry import Finding, rule


@rule("PD111", Severity.ERROR, "micro-batches do not make up the global batch")
def micro_divides_global(recipe: Recipe) -> Iterator[Finding]:
    """One optimizer step takes `global` sequences: every data-parallel device works through whole micro-batches, as
    many as the others. So micro × data_shard × data_replicate must divide global (data_shard counts once it is a
    number; the plan checks `auto`)."""
    for path, training, _ in trainings(recipe):
        batch, spread = training.batch, training.parallelism
        shard = 1 if spread.data_shard == "auto" else spread.data_shard
        devices = shard * spread.data_replicate
        if batch.global_ % (batch.micro * devices):
            among = f" × {devices} data-parallel devices" if devices > 1 else ""
            possible = divisors(batch.global_ // devices, batch.micro) if batch.global_ % devices == 0 else None
            yield Finding(
                f"{path}.batch.micro",
                f"micro {batch.micro}{among} does not divide the global batch of {batch.global_} sequences",
                f"micro could be {possible}" if possible else f"global must be a multiple of {devices}",
            )


@rule("PD112", Severity.ERROR, "not enough tokens for one step")
def tokens_make_a_step(recipe: Recipe) -> Iterator[Finding]:
    """Training makes whole steps: tokens / (global batch × sequence_length), rounded down. With none there is nothing
    to train. The paper's step is 2,048 sequences × 4,096 tokens = 8,388,608 tokens."""
    length = recipe.data.sequence_length
    for path, training, _ in trainings(recipe):
        tokens, needed = training.tokens or recipe.data.train_tokens, training.batch.global_ * length
        if tokens < needed:
            yield Finding(
                f"{path}.tokens" if training.tokens else "data.train_tokens",
                f"{tokens} tokens are less than the {needed} of one step "
                f"({training.batch.global_} sequences of {length} tokens)",
                "train on more tokens, or with a smaller global batch",
            )


@rule("PD113", Severity.ERROR, "more tokens are trained on than there are")
def tokens_within_data(recipe: Recipe) -> Iterator[Finding]:
    """A training stage reads each training sequence once, in order, so it cannot take more tokens than the training
    split holds."""
    for path, training, _ in trainings(recipe):
        if training.tokens is not None and training.tokens > recipe.data.train_tokens:
            yield Finding(
                f"{path}.tokens",
                f"training takes {training.tokens} tokens; data.train_tokens is {recipe.data.train_tokens}",
                "raise data.train_tokens, or train on less",
            )


@rule("PD114", Severity.ERROR, "no whole held-out sequence")
def validation_holds_a_sequence(recipe: Recipe) -> Iterator[Finding]:
    """The held-out loss is measured on whole sequences of sequence_length tokens, so the validation split must hold
    at least one."""
    if recipe.data.validation_tokens < recipe.data.sequence_length:
        yield Finding(
            "data.validation_tokens",
            f"{recipe.data.validation_tokens} held-out tokens are less than one sequence of "
            f"{recipe.data.sequence_length}",
        )


@rule("PD115", Severity.ERROR, "warm-up and decay take more than the whole training")
def phases_fit(recipe: Recipe) -> Iterator[Finding]:
    """Warm-up and decay are parts of all steps; the plateau of a WSD schedule is what they leave, so together they
    cannot exceed 1."""
    schedules = [("objective.alpha", recipe.objective.alpha)]
    rates = [(f"{path}.learning_rate_schedule", t.learning_rate_schedule) for path, t, _ in trainings(recipe)]
    for path, schedule in [*schedules, *rates]:
        warmup, decay = getattr(schedule, "warmup", 0.0), getattr(schedule, "decay", 0.0)
        if warmup + decay > 1 + 1e-9:
            yield Finding(
                f"{path}.warmup",
                f"warmup {warmup:g} and decay {decay:g} are {warmup + decay:g} of the training: more than all of it",
            )


@rule("PD116", Severity.ERROR, "loss chunks do not divide the sequence")
def chunks_divide_sequence(recipe: Recipe) -> Iterator[Finding]:
    """The output projection and the loss run over equal parts of the sequence, so that the logits of all positions
    never exist at once; loss_chunks must divide sequence_length (each context-parallel device's part of it)."""
    for path, training, _ in trainings(recipe):
        length = recipe.data.sequence_length // training.parallelism.context
        if length % training.loss_chunks:
            yield Finding(
                f"{path}.loss_chunks",
                f"{training.loss_chunks} loss chunks do not divide a sequence of {length} tokens",
                f"loss_chunks could be {divisors(length, training.loss_chunks)}",
            )


@rule("PD161", Severity.WARNING, "no checkpoint before the end")
def checkpoint_before_end(recipe: Recipe) -> Iterator[Finding]:
    """A training stage that is killed goes on at its last whole checkpoint. With checkpoint.every at or beyond the
    number of steps there is none before the end, and any pre-emption starts it from nothing."""
    for path, training, _ in trainings(recipe):
        tokens = training.tokens or recipe.data.train_tokens
        steps = tokens // (training.batch.global_ * recipe.data.sequence_length)
        if 1 < steps <= training.checkpoint.every:
            yield Finding(
                f"{path}.checkpoint.every",
                f"a checkpoint every {training.checkpoint.every} steps, and the training has {steps}",
                "save at least a few times in a run",
            )
