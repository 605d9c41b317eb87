"""Bytes of a plan: of its logit store beside what others would store, and of its checkpoints."""

from itertools import islice
from math import log2
from typing import NamedTuple

from pdforge.layout import StageDirectory
from pdforge.plan.estimate import BYTES_PER_ENTRY, KEPT_ENTRIES_VOCABULARY, checkpoint_bytes, kept_entries
from pdforge.plan.extension import kept_steps, saved_steps
from pdforge.plan.jobs import CaptureJob, TrainJob, kept
from pdforge.recipe.models import Sample

_PAPER_VOCABULARY, _PAPER_PETABYTE, _PAPER_KEPT = 150_000, 1024 * 1e12, 37.0
"""The paper's arithmetic (arXiv 2410.16215, section 3.2): float32 for about 150k ids a token, its PB being 1,024 TB;
and the values alone, without their ids, of top-0.95-100."""
_SHARDS_LOOKED_AT = 256
"""Of a store that is being written; enough for its mean."""


class Entries(NamedTuple):
    """How much of a position is kept."""

    mean: float | None
    """None: unknown."""
    most: int
    source: str


class StoreFigures(NamedTuple):
    """A logit store before it is there."""

    entries: Entries
    bytes_an_entry: float
    bytes: int | None
    """None: unknown."""
    bytes_at_most: int
    source: str
    """Of `bytes`."""
    positions: int
    full: int
    """Bytes of all logits in float32."""
    paper_full_pb: float | None
    """The paper's figure for all logits, scaled to these positions, in its unit; None: another vocabulary."""
    paper_values: int | None
    """Bytes of the values alone at the paper's 37.0 a position; None: as above."""


class CheckpointFigures(NamedTuple):
    """Checkpoints of a training."""

    each: int
    kept: int
    saves: int

    @property
    def kept_bytes(self) -> int:
        """On disk when it is done."""
        return self.each * self.kept

    @property
    def written_bytes(self) -> int:
        """Over the whole training."""
        return self.each * self.saves


class StoredBytes(NamedTuple):
    """A finished store that was measured."""

    entries: float
    bytes_an_entry: float
    source: str


def checkpoint_figures(job: TrainJob) -> CheckpointFigures:
    """Sizes and numbers; those that are due by time only are not counted."""
    each = checkpoint_bytes(job.architecture, job.vocabulary)
    return CheckpointFigures(each, len(kept_steps(job)), len(saved_steps(job)))


def store_figures(job: CaptureJob, directory: StageDirectory, measured: StoredBytes | None) -> StoreFigures:
    """What the store will hold.

    Args:
        job: the capture.
        directory: its stage directory: shards that are there already say what the others will weigh.
        measured: a finished store of the same vocabulary, truncation and codec.
    """
    vocabulary, length = job.teacher.vocabulary, job.teacher.sequence_length
    positions = job.sequences * length
    entries = _entries(job, measured)
    each = measured.bytes_an_entry if measured else bytes_an_entry(job.codec, vocabulary)
    columns = 4 * len(job.columns)
    size, source = None, entries.source
    if entries.mean is not None:
        size = round(positions * (entries.mean * each + columns))
    if begun := _begun(job, directory):
        sequences, held = begun
        size, source = round(held / sequences * job.sequences), f"its first {sequences:,} sequences"
    papers = vocabulary == KEPT_ENTRIES_VOCABULARY
    return StoreFigures(
        entries=entries,
        bytes_an_entry=each,
        bytes=size,
        bytes_at_most=round(positions * (entries.most * BYTES_PER_ENTRY[job.codec] + columns)),
        source=source,
        positions=positions,
        full=4 * positions * vocabulary,
        paper_full_pb=4 * positions * _PAPER_VOCABULARY / _PAPER_PETABYTE if papers else None,
        paper_values=round(4 * positions * _PAPER_KEPT) if papers else None,
    )


def _entries(job: CaptureJob, measured: StoredBytes | None) -> Entries:
    most = min(kept(job.truncation)[1], job.teacher.vocabulary)
    if measured:
        return Entries(measured.entries, most, measured.source)
    papers = None if isinstance(job.truncation, Sample) else kept_entries(job.truncation, job.teacher.vocabulary)
    if papers is not None:
        return Entries(papers, most, "the paper's mean for its teacher")
    return Entries(None, most, "unknown until the first shard is there")


def bytes_an_entry(codec: str, vocabulary: int) -> float:
    """Of a codec; smaller vocabularies have smaller gaps between ranks.

    Measured with rank-gap-63 (docs/store.md): 9.8 bits for 2,048 ids, 11.7 for 49,152; between them our interpolation.
    """
    smaller = (log2(49_152) - log2(max(2048, min(vocabulary, 49_152)))) / (log2(49_152) - log2(2048))
    return BYTES_PER_ENTRY[codec] * (1 - 0.18 * smaller)


def _begun(job: CaptureJob, directory: StageDirectory) -> tuple[int, int] | None:
    """(sequences, bytes) of some shards of a store that is not whole; None: there are none."""
    if directory.done.exists() or not directory.output.is_dir():
        return None
    sequences = held = 0
    for path in islice(directory.output.glob("shard-*.bin"), _SHARDS_LOOKED_AT):
        first = int(path.stem.removeprefix("shard-")) * job.shard_sequences
        sequences += min(job.shard_sequences, job.sequences - first)
        held += path.stat().st_size
    return (sequences, held) if sequences else None
