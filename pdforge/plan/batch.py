"""Batch arithmetic: how a global batch falls onto the processes of a profile."""

from typing import NamedTuple

from pdforge.errors import UsageError
from pdforge.recipe.models import Batch, Data, Training


class Split(NamedTuple):
    """How one optimizer step is divided."""

    data_parallel: int
    """Processes that read different sequences."""
    accumulation: int
    """Micro batches a process takes one after another."""


def steps_of(training: Training, data: Data, *, place: str) -> int:
    """The optimizer steps of `training` (the recipe's part `place`), or the whole ones in its tokens; at least 1.

    Raises:
        UsageError: there are not so many tokens.
    """
    length, held, epochs = data.sequence_length, data.train_tokens // data.sequence_length, training.epochs
    batch = training.batch.global_
    readable = held * epochs
    steps = training.steps or max(1, (training.tokens // length if training.tokens else readable) // batch)
    needed = steps * batch
    if needed > readable:
        times = f", {epochs} times" if epochs > 1 else ""
        raise UsageError(
            f"{place}: {steps} steps of {batch} sequences read {needed} sequences, "
            f"but data.train_tokens {data.train_tokens:,} makes {held}{times}",
            remedy=f"raise data.train_tokens to {-(-needed // epochs) * length:,} or more, or {place}.epochs, "
            f"or lower {place}.tokens or {place}.batch.global",
        )
    return steps


def split_batch(training: Training, processes: int, *, place: str) -> Split:
    """The division of the global batch of `training` (the recipe's part `place`) over `processes`.

    Raises:
        UsageError: the degrees of parallelism do not make up the processes, or the batch does not divide.
    """
    ranks = _data_parallel(training, processes, place)
    batch = training.batch
    if batch.global_ % (batch.micro * ranks):
        raise UsageError(
            f"{place}.batch: {batch.global_} sequences (global) do not divide into micro batches of {batch.micro} "
            f"on {ranks} data-parallel {_processes(ranks)} ({batch.micro} × {ranks} = {batch.micro * ranks})",
            remedy=f"accepted: {_accepted(batch, ranks, processes)}",
        )
    return Split(ranks, batch.global_ // (batch.micro * ranks))


def _data_parallel(training: Training, processes: int, place: str) -> int:
    spread = training.parallelism
    model = spread.tensor * spread.pipeline * spread.context
    fixed = model * spread.data_replicate * (1 if spread.data_shard == "auto" else spread.data_shard)
    if processes % fixed or (spread.data_shard != "auto" and fixed != processes):
        wanted = "a multiple of" if spread.data_shard == "auto" else "exactly"
        raise UsageError(
            f"{place}.parallelism: {processes} {_processes(processes)} cannot be divided into replicate "
            f"{spread.data_replicate} × shard {spread.data_shard} × tensor {spread.tensor} × "
            f"pipeline {spread.pipeline} × context {spread.context}",
            remedy=f"this parallelism needs {wanted} {fixed}: --processes {fixed}",
        )
    return processes // model


def _accepted(batch: Batch, ranks: int, processes: int) -> str:
    unit = batch.micro * ranks
    below, above = batch.global_ // unit * unit, (batch.global_ // unit + 1) * unit
    ways = [f"global {' or '.join(str(n) for n in (below, above) if n)}"]
    if batch.global_ % ranks == 0:
        share = batch.global_ // ranks
        ways.append(f"micro {', '.join(str(n) for n in range(1, min(share, 64) + 1) if share % n == 0)}")
    model = processes // ranks
    most = min(ranks, batch.global_ // batch.micro + 1)
    counts = [n * model for n in range(1, most) if batch.global_ % (batch.micro * n) == 0]
    if counts:
        ways.append(f"--processes {', '.join(map(str, counts[-4:]))}")
    return "; or ".join(ways)


def _processes(count: int) -> str:
    return "process" if count == 1 else "processes"
