"""Truncated distributions and stores, made for tests."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pdforge.store.codec import COLUMNS
from pdforge.store.logits import LogitBlock, LogitSpec, LogitStore, LogitWriter

TEACHER_DATA = Path(os.environ.get("PDFORGE_TEACHER_DATA", "no-teacher-data"))
"""A real teacher's output, in the form that benchmarks/store.py reads."""


def block(
    rng: np.random.Generator,
    *,
    length: int,
    vocabulary: int,
    top_p: float = 0.95,
    top_k: int = 20,
    columns: bool = False,
    ties: bool = False,
    flat: float = 3.0,
) -> LogitBlock:
    """What capture would hand over for `length` random softmaxes: top-p, then top-k, ties to the lower id."""
    logits = rng.normal(size=(length, vocabulary)) * flat
    if ties:
        logits = np.round(logits)
    logprobs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    extra = {name: rng.random(length).astype(np.float32) for name in COLUMNS} if columns else {}
    return dataclasses.replace(truncated(logprobs, top_p, top_k), **extra)


def truncated(logprobs: np.ndarray, top_p: float, top_k: int) -> LogitBlock:
    """Top-p, then top-k of log-probabilities [L, V]."""
    count, ids, kept = [], [], []
    for row in logprobs.astype(np.float32):
        order = np.lexsort((np.arange(len(row)), -row))
        p = np.exp(row[order].astype(np.float64))
        n = min(int((np.cumsum(p) - p < top_p).sum()), top_k)
        count.append(n)
        ids.append(order[:n])
        kept.append(row[order[:n]])
    mass = np.array([np.exp(row.astype(np.float64)).sum() for row in kept], np.float32)
    return LogitBlock(np.array(count, np.uint16), np.concatenate(ids).astype(np.int32), np.concatenate(kept), mass)


def spec(**changes: Any) -> LogitSpec:
    facts = {
        "identity": "0123456789ab",
        "teacher": "teacher-1",
        "tokens": "ba9876543210",
        "tokens_content": "c0ffee",
        "tokenizer": "deadbeef",
        "sequence_length": 16,
        "vocabulary": 300,
        "top_p": 0.95,
        "top_k": 20,
        "sequences": 10,
        "shard_sequences": 4,
        "teacher_dtype": "float32",
    }
    return LogitSpec(**{**facts, **changes})


def blocks_of(held: LogitSpec, shard: int, **options: Any) -> list[LogitBlock]:
    """The blocks of a shard: the same whenever it is asked for."""
    rng = np.random.default_rng(shard)
    shape = {"length": held.sequence_length, "vocabulary": held.vocabulary, "top_p": held.top_p, "top_k": held.top_k}
    return [block(rng, **shape, columns=bool(held.columns), **options) for _ in range(held.shard_length(shard))]


def store(
    path: Path, held: LogitSpec | None = None, *, capture: dict[str, Any] | None = None, **options: Any
) -> LogitStore:
    held = held or spec()
    writer = LogitWriter(path, held)
    for shard in writer.missing_shards():
        writer.write_shard(shard, blocks_of(held, shard, **options))
    writer.finish({"held_out_loss": 2.5} if capture is None else capture)
    return LogitStore.open(path)


_KILLED = """
import os, signal, sys
calls, fsync = 0, os.fsync
def dying(descriptor):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
os.fsync = dying
"""


def run_killed(script: str, path: Path, at: int) -> subprocess.CompletedProcess[str]:
    """Run `script`, which writes to sys.argv[1]; the process gets SIGKILL where it would make something durable for the
    `at`-th time: a file has been written by then and has no name yet, or a name that may not last. 0: never.
    """
    return subprocess.run(
        [sys.executable, "-c", _KILLED + script, str(path), str(at)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
