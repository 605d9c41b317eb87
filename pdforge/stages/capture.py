"""`capture`: the teacher over the token store, its truncated distributions into the logit store.

Ranks share nothing but the store: rank r of R captures the shards r, r+R, r+2R, …, and rank 0 publishes the manifest
when all are there. A shard is computed from the same batches wherever and whenever it is captured, so a capture that
was killed ends with the same bytes. Encoding and writing happen in a thread while the teacher goes on.

Ranks that hold a sharded teacher together take that many shards at a time, and run it as often as the others do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from pdforge import heartbeat
from pdforge.layout import StageDirectory
from pdforge.plan.jobs import CaptureJob
from pdforge.stages import assemble, stop
from pdforge.stages.device import device_of_rank
from pdforge.stages.entry import Results, Stopped, in_array
from pdforge.stages.group import Group
from pdforge.stages.store import CaptureProgress, all_written, publish, spec_of
from pdforge.store.background import BackgroundWriter
from pdforge.store.blocks import blocks_of
from pdforge.store.codec import CODECS, LogitBlock
from pdforge.store.ranks import Ranks
from pdforge.store.tokens import TokenStore
from pdforge.store.writer import LogitWriter
from pdforge.titan.teacher import Signal, load_teacher


def run(job: CaptureJob, directory: StageDirectory, rank: int, ranks: int) -> Results | Stopped:
    """Capture this rank's missing shards; rank 0 then waits for the others' and publishes the store.

    A task of a job array waits for nobody and publishes nothing: tasks need not run at the same time.

    Raises:
        EnvironmentFault: no CUDA device where the job wants one.
        StageFailed: the teacher is no language model of this text.
    """
    if not job.runs_teacher:
        return assemble.run(job, directory, rank, ranks)
    tokens = TokenStore.open(job.tokens)
    device = device_of_rank(job.device, rank)
    with Group(rank, ranks, job.shard, device) as group:
        teacher = _Teacher(job, tokens, device, group)
        heartbeat.finish("build")
        heldout = teacher.signal.require_language_model(job.micro)
        # a sharded teacher runs on all of its ranks, or on none
        learnt = _ranks(teacher, job) if group.mesh is not None else None
        writer = LogitWriter(job.output, spec_of(job, tokens), lambda: learnt or _ranks(teacher, job))
        progress = CaptureProgress(directory, writer.spec) if rank == 0 or in_array() else None
        if not _capture(writer, teacher, group, progress):
            return "stopped"
    if progress is None or in_array():
        return {}
    if not all_written(writer, progress):
        return "stopped"
    return publish(writer, {"teacher_heldout_loss": heldout})


def _capture(writer: LogitWriter, teacher: _Teacher, group: Group, progress: CaptureProgress | None) -> bool:
    """Capture the shards that fall to this rank; False: asked to stop before the last one."""
    spec = writer.spec
    with BackgroundWriter(writer) as background:
        for shard in group.share(writer.missing_shards()):
            if group.any(stop.requested()):
                return False
            first = 0 if shard is None else shard * spec.shard_sequences
            length = 0 if shard is None else spec.shard_length(shard)
            blocks = list(teacher.blocks(first, first + length, like=spec.shard_length(0)))
            if shard is not None:
                background.write_shard(shard, blocks)
            heartbeat.finish("first step")
            if progress:
                progress.report(len(writer.missing_shards()))
    return True


class _Teacher:
    """The frozen teacher over a token store."""

    def __init__(self, job: CaptureJob, tokens: TokenStore, device: torch.device, group: Group) -> None:
        self._job, self._sharded = job, group.mesh is not None
        model = load_teacher(job.teacher, tokens, device, getattr(torch, job.precision), mesh=group.mesh)
        source = job.teacher
        self.signal = Signal(model, tokens, job.truncation, source.vocabulary, source.sequence_length, source.place)

    def blocks(self, first: int, end: int, *, like: int | None = None) -> Iterator[LogitBlock]:
        """The truncated distributions of samples first … end-1, one block a sequence.

        `like`: a sharded teacher runs as often as it takes for so many samples, because the others of its group do.
        """
        micro = self._job.micro
        for start in range(first, end, micro):
            parts = self.signal.of_samples("train", range(start, min(end, start + micro)), self._job.columns)
            yield from blocks_of({name: part.cpu().numpy() for name, part in parts.items()}, self._job.columns)
        if self._sharded and like is not None:
            for _ in range(-(-like // micro) - -(-(end - first) // micro)):
                self.signal.of_samples("train", range(1))


def _ranks(teacher: _Teacher, job: CaptureJob) -> Ranks:
    """The store's rank tables, from what the teacher keeps at its first positions."""
    blocks = list(teacher.blocks(0, job.calibration))
    ids, vocabulary = np.concatenate([block.ids for block in blocks]), job.teacher.vocabulary
    if CODECS[job.codec].tables:
        return Ranks.learn(np.concatenate([block.count for block in blocks]), ids, vocabulary)
    return Ranks.from_counts(np.bincount(ids, minlength=vocabulary))
