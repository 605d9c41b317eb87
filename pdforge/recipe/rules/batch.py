"""Rules on batches, tokens, steps and schedules."""

from __future__ import annotations

from collections.abc import Iterator

from pdforge.diagnostics import Severity
from pdforge.recipe.models import Recipe
from pdforge.recipe.pupils import pupils
from pdforge.recipe.rules.parts import divisors, trainings
from pdforge.recipe.rules.registry import Finding, rule


@rule("PD111", Severity.ERROR, "micro-batches do not make up the global batch")
def micro_divides_global(recipe: Recipe) -> Iterator[Finding]:
    """One optimizer step takes `global` sequences: every data-parallel device works through whole micro-batches, as
    many as the others. So micro × data_shard × data_replicate must divide global (data_shard counts once it is a
    number; the plan checks `auto`)."""
    for path, training, *_ in trainings(recipe):
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
    for part in trainings(recipe):
        batch = part.training.batch.global_
        if part.training.steps is None and part.tokens < batch * length:
            yield Finding(
                part.tokens_field,
                f"{part.tokens} tokens are less than the {batch * length} of one step "
                f"({batch} sequences of {length} tokens)",
                "train on more tokens, or with a smaller global batch",
            )


@rule("PD113", Severity.ERROR, "more tokens are trained on than there are")
def tokens_within_data(recipe: Recipe) -> Iterator[Finding]:
    """A training stage reads each training sequence once, in order, or as often as its `epochs` say, so it cannot take
    more tokens than its data holds: the training split, or what finetune asks for."""
    for part in trainings(recipe):
        steps, step = part.training.steps, part.training.batch.global_ * recipe.data.sequence_length
        taken = steps * step if steps else part.tokens
        if taken > part.available:
            means = f" ({steps} steps of {step})" if steps else ""
            times = f", {part.times} times" if part.times > 1 else ""
            epochs = f"set epochs to {-(-taken // part.once)}, " if part.repeated else ""
            yield Finding(
                f"{part.path}.{'steps' if steps else 'tokens'}",
                f"training takes {taken} tokens{means}; {part.source} is {part.once}{times}",
                f"raise {part.source}, {epochs}or train on less",
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
    schedules = [(f"{pupil.path}objective.alpha", pupil.objective.alpha) for pupil in pupils(recipe)]
    rates = [(f"{path}.learning_rate_schedule", t.learning_rate_schedule) for path, t, *_ in trainings(recipe)]
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
    for path, training, *_ in trainings(recipe):
        length = recipe.data.sequence_length // training.parallelism.context
        if length % training.loss_chunks:
            yield Finding(
                f"{path}.loss_chunks",
                f"{training.loss_chunks} loss chunks do not divide a sequence of {length} tokens",
                f"loss_chunks could be {divisors(length, training.loss_chunks)}",
            )


@rule("PD117", Severity.ERROR, "both tokens and steps")
def tokens_or_steps(recipe: Recipe) -> Iterator[Finding]:
    """`tokens` and `steps` are two ways to say how long a training is; given both, a later change to one of them
    would be silently without effect, or contradict the other."""
    for path, training, *_ in trainings(recipe):
        if training.tokens is not None and training.steps is not None:
            yield Finding(
                f"{path}.steps", f"both steps {training.steps} and tokens {training.tokens} are given", "keep one"
            )


@rule("PD118", Severity.ERROR, "fewer than two checkpoints are kept")
def two_checkpoints(recipe: Recipe) -> Iterator[Finding]:
    """A job that is killed while it saves leaves its newest checkpoint half written, so the one before must still be
    there. torchtitan refuses to keep fewer than 2 as well."""
    for path, training, *_ in trainings(recipe):
        if training.checkpoint.keep < 2:
            yield Finding(f"{path}.checkpoint.keep", f"keep is {training.checkpoint.keep}; it must be at least 2")


@rule("PD161", Severity.WARNING, "no checkpoint before the end")
def checkpoint_before_end(recipe: Recipe) -> Iterator[Finding]:
    """A training stage that is killed goes on at its last whole checkpoint. With checkpoint.every at or beyond the
    number of steps there is none before the end, and any pre-emption starts it from nothing."""
    for part in trainings(recipe):
        steps, checkpoint = part.steps(recipe.data.sequence_length), part.training.checkpoint
        if 1 < steps <= checkpoint.every and checkpoint.interval is None:
            yield Finding(
                f"{part.path}.checkpoint.every",
                f"a checkpoint every {checkpoint.every} steps, and the training has {steps}",
                "save at least a few times in a run",
            )


@rule("PD163", Severity.WARNING, "the held-out loss is never measured on the way")
def validation_before_end(recipe: Recipe) -> Iterator[Finding]:
    """validate_every counts steps; at or beyond the length of the training it asks for a curve and gets the one
    measurement at the end, which is made in any case."""
    for part in trainings(recipe):
        steps, every = part.steps(recipe.data.sequence_length), part.training.validate_every
        if every is not None and 0 < steps <= every:
            yield Finding(
                f"{part.path}.validate_every",
                f"measured every {every} steps, and the training has {steps}",
                "measure a few times in a run, or leave it out",
            )
