"""`capture`: the teacher over the token store, its truncated distributions into the logit store.

Ranks share nothing but the store: rank r of R captures the shards r, r+R, r+2R, …, and rank 0 publishes the manifest
when all are there. A shard is computed from the same batches wherever and whenever it is captured, so a capture that
was killed ends with the same bytes. Encoding and writing happen in a thread while the teacher goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdforge import heartbeat
from pdforge.distill.sampling import sample
from pdforge.distill.statistics import statistics
from pdforge.distill.truncation import truncate
from pdforge.layout import StageDirectory, write_json
from pdforge.plan.jobs import CaptureJob, ModelSource, kept
from pdforge.recipe.models import Sample
from pdforge.stages import stop
from pdforge.stages.entry import Results, Stopped, in_array
from pdforge.store.background import BackgroundWriter
from pdforge.store.codec import CODECS, LogitBlock
from pdforge.store.ranks import Ranks
from pdforge.store.spec import LogitSpec
from pdforge.store.tokens import TokenSplit, TokenStore
from pdforge.store.writer import LogitWriter
from pdforge.titan.inference import FrozenModel
from pdforge.titan.models import decoder_of

LOGITS_AT_ONCE = 64 * 2**20
"""Logits, in numbers, that exist at one time: 256 MiB in float32; a quarter for samples, whose sums take int64."""

POLL_S = 0.5
"""Between two looks of rank 0 at what the others have published."""


def run(job: CaptureJob, directory: StageDirectory, rank: int, ranks: int) -> Results | Stopped:
    """Capture this rank's missing shards; rank 0 then waits for the others' and publishes the store.

    A task of a job array waits for nobody and publishes nothing: tasks need not run at the same time.
    """
    tokens = TokenStore.open(job.tokens)
    teacher = _Teacher(job, tokens.split("train"), _device(job, rank))
    heartbeat.finish("build")
    top_p, top_k = kept(job.truncation)
    spec = LogitSpec(
        identity=job.identity,
        teacher=job.teacher_identity,
        tokens=job.tokens_identity,
        tokens_content=tokens.manifest.content,
        tokenizer=tokens.manifest.tokenizer,
        sequence_length=job.teacher.sequence_length,
        vocabulary=job.teacher.vocabulary,
        top_p=top_p,
        top_k=top_k,
        sequences=job.sequences,
        shard_sequences=job.shard_sequences,
        teacher_dtype=job.precision,
        codec=job.codec,
        columns=job.columns,
        seed=job.truncation.seed if isinstance(job.truncation, Sample) else None,
    )
    writer = LogitWriter(job.output, spec, lambda: _ranks(teacher, job))
    progress = _Progress(directory, spec) if rank == 0 or in_array() else None
    with BackgroundWriter(writer) as background:
        for shard in writer.missing_shards():
            if shard % ranks != rank:
                continue
            if stop.requested():
                return "stopped"
            first = shard * spec.shard_sequences
            background.write_shard(shard, list(teacher.blocks(first, first + spec.shard_length(shard))))
            heartbeat.finish("first step")
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

    def __init__(self, job: CaptureJob, split: TokenSplit, device: torch.device) -> None:
        self._job, self._split, self._device = job, split, device
        assert isinstance(job.teacher, ModelSource), "another source is refused before anything starts"
        self._model = load(job.teacher, device, getattr(torch, job.precision))

    def blocks(self, first: int, end: int) -> Iterator[LogitBlock]:
        """The truncated distributions of samples first … end-1, one block a sequence."""
        for start in range(first, end, self._job.micro):
            tokens, positions = self._split.get_batch(range(start, min(end, start + self._job.micro)))
            packed = torch.from_numpy(tokens).long()
            parts = self._parts(packed, torch.from_numpy(positions).long(), start)
            for row in range(len(packed)):
                yield self._block({name: part[row] for name, part in parts.items()})

    def _parts(self, packed: Tensor, positions: Tensor, first: int) -> dict[str, NDArray[Any]]:
        """Everything that is stored of samples first … first+B-1, by name: [B, L], or [B, L, K] padded."""
        inputs, labels = packed[:, :-1], packed[:, 1:]
        hidden = self._model.hidden(inputs, positions)
        samples, places = torch.meshgrid(
            torch.arange(first, first + len(inputs)), torch.arange(inputs.shape[1]), indexing="ij"
        )
        sampled = isinstance(self._job.truncation, Sample)
        rows = max(1, LOGITS_AT_ONCE // (4 if sampled else 1) // self._job.teacher.vocabulary)
        chunks = [
            self._chunk(self._model.logits(states), *(part.to(self._device) for part in others))
            for states, *others in zip(
                *(torch.split(part.flatten(0, 1), rows) for part in (hidden, labels, samples, places)), strict=True
            )
        ]
        whole = {name: torch.cat([chunk[name] for chunk in chunks]).cpu().numpy() for name in chunks[0]}
        return {name: part.reshape(*inputs.shape, *part.shape[1:]) for name, part in whole.items()}

    def _chunk(self, logits: Tensor, labels: Tensor, samples: Tensor, places: Tensor) -> dict[str, Tensor]:
        truncation = self._job.truncation
        figures = statistics(logits, labels, self._job.columns)
        if isinstance(truncation, Sample):
            drawn = sample(logits, truncation.draws, seed=truncation.seed, samples=samples, places=places)
            return {"count": drawn.count, "ids": drawn.ids, "draws": drawn.draws, **figures}
        cut = truncate(logits, truncation.top_p, truncation.top_k)
        return {"count": cut.count, "ids": cut.ids, "logprobs": cut.logprobs, "mass": cut.mass, **figures}

    def _block(self, parts: dict[str, NDArray[Any]]) -> LogitBlock:
        """The block of one sequence's parts, without their padding."""
        count, ids = parts["count"], parts["ids"]
        inside = np.arange(ids.shape[1]) < count[:, None]
        columns = {name: parts[name] for name in self._job.columns}
        if "draws" in parts:
            return replace(LogitBlock.sampled(count, ids[inside], parts["draws"][inside]), **columns)
        return LogitBlock(
            count=count.astype(np.uint16),
            ids=ids[inside].astype(np.int32),
            logprobs=parts["logprobs"][inside],
            mass=parts["mass"],
            **columns,
        )


def load(source: ModelSource, device: torch.device, dtype: torch.dtype) -> FrozenModel:
    """The model of a torchtitan checkpoint."""
    spec = decoder_of(source.architecture, vocabulary=source.vocabulary, sequence_length=source.sequence_length)
    return FrozenModel(spec, checkpoint=Path(source.checkpoint) / f"step-{source.step}", device=device, dtype=dtype)


def _device(job: CaptureJob, rank: int) -> torch.device:
    if job.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


def _ranks(teacher: _Teacher, job: CaptureJob) -> Ranks:
    """The store's rank tables, from what the teacher keeps at its first positions."""
    blocks = list(teacher.blocks(0, job.calibration))
    ids, vocabulary = np.concatenate([block.ids for block in blocks]), job.teacher.vocabulary
    if CODECS[job.codec].tables:
        return Ranks.learn(np.concatenate([block.count for block in blocks]), ids, vocabulary)
    return Ranks.from_counts(np.bincount(ids, minlength=vocabulary))


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
