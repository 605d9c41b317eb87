"""`capture` of distributions that a teacher stored while it was pre-trained: puts them into the order of a logit store.

Nothing is computed again: encoded sequences keep their bytes, whichever process of the training wrote them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pdforge.layout import StageDirectory, read_json
from pdforge.plan.jobs import CaptureJob, kept
from pdforge.stages import stop
from pdforge.stages.entry import Results, Stopped, in_array
from pdforge.stages.store import CaptureProgress, all_written, publish, spec_of
from pdforge.store.convergence import Recorded, Seen
from pdforge.store.fidelity import tally
from pdforge.store.segments import Encoding, Segments, read_table
from pdforge.store.tokens import TokenStore
from pdforge.store.writer import LogitWriter


def run(job: CaptureJob, directory: StageDirectory, rank: int, ranks: int) -> Results | Stopped:
    """Write this rank's missing shards; rank 0 then waits for the others' and publishes the store.

    Raises:
        StoreMissing: the training did not leave the distributions of every sample.
        StoreDamaged: what it left is not what was written.
    """
    assert job.training is not None
    training = StageDirectory(Path(job.training))
    segments = Segments(training.distributions)
    segments.require(range(job.first_sample, job.first_sample + job.sequences))
    table = read_table(training.distributions, job.teacher.vocabulary)
    writer = LogitWriter(job.output, spec_of(job, TokenStore.open(job.tokens)), lambda: table)
    encoding = Encoding(
        codec=job.codec,
        columns=job.columns,
        vocabulary=job.teacher.vocabulary,
        length=job.teacher.sequence_length,
        width=kept(job.truncation)[1],
    )
    progress = CaptureProgress(directory, writer.spec) if rank == 0 or in_array() else None
    for shard in writer.missing_shards():
        if stop.requested():
            return "stopped"
        if shard % ranks == rank:
            first = job.first_sample + shard * job.shard_sequences
            samples = range(first, first + writer.spec.shard_length(shard))
            encoded = [segments.block(sample) for sample in samples]
            decoded = [encoding.decode(table, data) for data in encoded]
            count = np.concatenate([np.isfinite(one.logprobs).sum(axis=1) for one in decoded])
            mass = np.concatenate([one.mass for one in decoded]).astype(np.float64)
            measured = tally(count, mass, encoding.width, segments.fidelity(first))
            seen = _seen(segments, samples).model_dump(mode="json")
            writer.write_encoded(shard, encoded, measured, {"teacher": seen})
        if progress:
            progress.report(len(writer.missing_shards()))
    if progress is None or in_array():
        return {}
    if not all_written(writer, progress):
        return "stopped"
    recorded = _recorded(segments, job, [writer.spec.shard_length(shard) for shard in range(writer.spec.shards)])
    done = read_json(training.done) or {}
    heldout = done.get("results", {}).get("heldout_loss")
    return publish(writer, {"teacher_heldout_loss": heldout}, recorded.model_dump(mode="json"))


def _recorded(segments: Segments, job: CaptureJob, lengths: list[int]) -> Recorded:
    """Of a store whose shards have so many samples."""
    assert job.from_step is not None
    starts = [job.first_sample + shard * job.shard_sequences for shard in range(len(lengths))]
    last = range(max(job.first_sample, segments.end - job.shard_sequences), segments.end)
    return Recorded(
        from_step=job.from_step,
        shards=tuple(
            _seen(segments, range(start, start + length)) for start, length in zip(starts, lengths, strict=True)
        ),
        last=_seen(segments, last),
    )


def _seen(segments: Segments, samples: range) -> Seen:
    """How the teacher did on samples when it saw them."""
    seen = [segments.seen(sample) for sample in samples]
    steps = [step for step, _ in seen]
    return Seen(steps=(min(steps), max(steps)), loss=round(float(np.mean([loss for _, loss in seen])), 6))
