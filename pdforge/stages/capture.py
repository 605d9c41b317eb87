"""`capture`: the teacher over the token store, its truncated distributions into the logit store.

Ranks share nothing but the store: rank r of R captures the shards r, r+R, r+2R, …, and rank 0 publishes the manifest
when all are there. A shard is computed from the same batches wherever and whenever it is captured, so a capture that
was killed ends with the same bytes. Encoding and writing happen in a thread while the teacher goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pdforge.distill.truncation import truncate
from pdforge.layout import StageDirectory, write_json
from pdforge.plan.jobs import CaptureJob, ModelSource
from pdforge.recipe.models import TopPTopK
from pdforge.stages import stop
from pdforge.stages.entry import Results, Stopped, in_array
from pdforge.store.background import BackgroundWriter
from pdforge.store.codec import LogitBlock
from pdforge.store.ranks import Ranks
from pdforge.store.spec import LogitSpec
from pdforge.store.tokens import TokenSplit, TokenStore
from pdforge.store.writer import LogitWriter
from pdforge.titan.inference import FrozenModel
from pdforge.titan.models import decoder

CALIBRATION_POSITIONS = 8192
"""Positions whose kept ids order the store's rank table; every rank computes the same ones."""

LOGITS_AT_ONCE = 64 * 2**20
"""Logits, in numbers, that exist at one time: 256 MiB in float32."""

POLL_S = 0.5
"""Between two looks of rank 0 at what the others have published."""


def run(job: CaptureJob, directory: StageDirectory, rank: int, ranks: int) -> Results | Stopped:
    """Capture this rank's missing shards; rank 0 then waits for the others' and publishes the store.

    A task of a job array waits for nobody and publishes nothing: tasks need not run at the same time.
    """
    tokens = TokenStore.open(job.tokens)
    truncation = job.truncation
    assert isinstance(truncation, TopPTopK), "another truncation is refused before anything starts"
    teacher = _Teacher(job, truncation, tokens.split("train"), _device(job, rank))
    spec = LogitSpec(
        identity=job.identity,
        teacher=job.teacher_identity,
        tokens=job.tokens_identity,
        tokens_content=tokens.manifest.content,
        tokenizer=tokens.manifest.tokenizer,
        sequence_length=job.teacher.sequence_length,
        vocabulary=job.teacher.vocabulary,
        top_p=truncation.top_p,
        top_k=truncation.top_k,
        sequences=job.sequences,
        shard_sequences=job.shard_sequences,
        teacher_dtype=job.precision,
    )
    calibration = min(job.sequences, max(1, CALIBRATION_POSITIONS // spec.sequence_length))
    writer = LogitWriter(
        job.output,
        spec,
        lambda: Ranks.from_counts(_kept_counts(teacher.blocks(0, calibration), spec.vocabulary)),
    )
    progress = _Progress(directory, spec) if rank == 0 or in_array() else None
    with BackgroundWriter(writer) as background:
        for shard in writer.missing_shards():
            if shard % ranks != rank:
                continue
            if stop.requested():
                return "stopped"
            first = shard * spec.shard_sequences
            background.write_shard(shard, list(teacher.blocks(first, first + spec.shard_length(shard))))
            if progress:
                progress.report(len(writer.missing_shards()))
    if rank != 0 or in_array():
        return {}
    while missing := writer.missing_shards():
        if stop.requested():
            return "stopped"
        assert progress is not None
        progress.report(len(missing))
        time.sleep(POLL_S)
    manifest = writer.finish({})
    fidelity = manifest.fidelity
    return {
        "positions": fidelity.positions,
        "kept_count": fidelity.entries / fidelity.positions,
        "kept_mass": fidelity.mass_mean,
        "kl_of_decoded": fidelity.kl_mean,
        "bytes": manifest.bytes,
    }


class _Teacher:
    """The frozen teacher over one split of the token store."""

    def __init__(self, job: CaptureJob, truncation: TopPTopK, split: TokenSplit, device: torch.device) -> None:
        self._job, self._truncation, self._split = job, truncation, split
        assert isinstance(job.teacher, ModelSource), "another source is refused before anything starts"
        self._model = load(job.teacher, device, getattr(torch, job.precision))

    def blocks(self, first: int, end: int) -> Iterator[LogitBlock]:
        """The truncated distributions of samples first … end-1, one block a sequence."""
        for start in range(first, end, self._job.micro):
            tokens, positions = self._split.get_batch(range(start, min(end, start + self._job.micro)))
            inputs = torch.from_numpy(tokens[:, :-1]).long()
            yield from self._truncated(inputs, torch.from_numpy(positions).long())

    def _truncated(self, inputs: torch.Tensor, positions: torch.Tensor) -> Iterator[LogitBlock]:
        hidden = self._model.hidden(inputs, positions)
        rows = max(1, LOGITS_AT_ONCE // self._job.teacher.vocabulary)
        parts = [
            truncate(self._model.logits(chunk), self._truncation.top_p, self._truncation.top_k)
            for chunk in torch.split(hidden.flatten(0, 1), rows)
        ]
        count, mass, ids, logprobs = (
            torch.cat([getattr(part, name) for part in parts]).cpu().numpy()
            for name in ("count", "mass", "ids", "logprobs")
        )
        length = inputs.shape[1]
        for row in range(inputs.shape[0]):
            own = slice(row * length, (row + 1) * length)
            kept = np.arange(ids.shape[1]) < count[own, None]
            yield LogitBlock(
                count=count[own].astype(np.uint16),
                ids=ids[own][kept].astype(np.int32),
                logprobs=logprobs[own][kept],
                mass=mass[own],
            )


def load(source: ModelSource, device: torch.device, dtype: torch.dtype) -> FrozenModel:
    """The model of a torchtitan checkpoint."""
    architecture = source.architecture
    spec = decoder(
        family=architecture.family,
        vocabulary=source.vocabulary,
        sequence_length=source.sequence_length,
        hidden=architecture.hidden,
        ffn=architecture.ffn,
        layers=architecture.layers,
        heads=architecture.heads,
        kv_heads=architecture.kv_heads or architecture.heads,
        head_dim=architecture.head_dim or architecture.hidden // architecture.heads,
        rope_theta=architecture.rope_theta,
        tied_embeddings=architecture.tied_embeddings,
    )
    return FrozenModel(spec, checkpoint=Path(source.checkpoint) / f"step-{source.step}", device=device, dtype=dtype)


def _device(job: CaptureJob, rank: int) -> torch.device:
    if job.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


def _kept_counts(blocks: Iterator[LogitBlock], vocabulary: int) -> NDArray[np.int64]:
    counts = np.zeros(vocabulary, np.int64)
    for block in blocks:
        counts += np.bincount(block.ids, minlength=vocabulary)
    return counts


class _Progress:
    """Writes how much of the store is there."""

    def __init__(self, directory: StageDirectory, spec: LogitSpec) -> None:
        self._path, self._spec = directory.progress, spec
        self._started = time.monotonic()
        self._first: int | None = None

    def report(self, missing_shards: int) -> None:
        """With so many shards still missing."""
        done = max(0, self._spec.sequences - missing_shards * self._spec.shard_sequences)
        self._first = done if self._first is None else self._first
        rate = (done - self._first) / (time.monotonic() - self._started)
        row: dict[str, Any] = {
            "stage": "capture",
            "step": done,
            "of": self._spec.sequences,
            "unit": "sequences",
            "loss": None,
            "tokens_per_second": rate * self._spec.sequence_length or None,
            "eta_seconds": (self._spec.sequences - done) / rate if rate else None,
            "message": "",
            "time": time.time(),
        }
        write_json(self._path, row)
