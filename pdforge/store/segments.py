"""Distributions on their way from a teacher in training to a logit store: what each process saw, in order of steps.

A segment holds encoded sequences of one process, of steps that lie between two checkpoints of the training. It is
published before the later checkpoint is, so behind a checkpoint there is no gap; segments past the checkpoint that a
training takes up again are dropped, and written once more with the same bits. The folder also holds the rank table of
their encoding. A capture stage puts the sequences into the order of a logit store (`Segments`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdforge.errors import StoreDamaged, StoreError, StoreMissing
from pdforge.store import codec as planes
from pdforge.store.codec import CODECS, Codec, Decoded, LogitBlock
from pdforge.store.fidelity import divergence
from pdforge.store.files import Folder, remove_leftovers
from pdforge.store.ranks import Ranks
from pdforge.store.shards import ShardReader, write_shard_file

_TABLE = "table.bin"
_WAIT_S, _POLL_S = 600.0, 0.05
"""For the first process's rank table."""
_OPEN_SEGMENTS = 64
"""Kept open, of any number: each holds a descriptor."""
_SEEN = np.dtype([("sample", "i8"), ("segment", "i4"), ("block", "i4"), ("step", "i8"), ("loss", "f8")])
"""Of each sample, where it is, and how the teacher did on it."""


@dataclass(frozen=True)
class Encoding:
    """How sequences are encoded.

    Attributes:
        codec: of `CODECS`.
        columns: figures of each position besides its distribution.
        vocabulary: V.
        length: positions of a sequence.
        width: largest number of entries of a position.
    """

    codec: str
    columns: tuple[str, ...]
    vocabulary: int
    length: int
    width: int

    @property
    def planes(self) -> Codec:
        """The codec."""
        return CODECS[self.codec]

    def decode(self, ranks: Ranks, data: bytes | memoryview) -> Decoded:
        """One sequence; raises CorruptBlockError."""
        return planes.decode(self.planes, ranks, data, length=self.length, width=self.width, columns=self.columns)


class SegmentWriter:
    """Writes what one process of a training sees. Encoding runs in a thread; its errors come out of `publish`."""

    def __init__(
        self, folder: Path, encoding: Encoding, process: int, sequences: int, measured: Callable[[int], bool]
    ) -> None:
        """Write below `folder`; a segment is published at `sequences` sequences at the latest.

        The rank table is learnt from what process 0 sees first; the others wait for it. Samples that are `measured` are
        decoded again and compared.
        """
        self._folder, self._encoding, self._process, self._most = folder, encoding, process, sequences
        self._measured = measured
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="segments")
        self._pending: list[Future[None]] = []
        self._ranks: Ranks | None = None
        self._samples: list[int] = []
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._data: list[bytes] = []
        self._fidelity: dict[int, dict[str, float]] = {}

    def add(
        self, step: int, samples: Sequence[int], losses: Sequence[float], blocks: Callable[[], Sequence[LogitBlock]]
    ) -> None:
        """Sequences that the process saw in a step.

        Args:
            step: from 1.
            samples: their sample indices.
            losses: the teacher's loss on each, nats a token.
            blocks: gives their distributions; called in the thread.
        """
        self._pending.append(self._pool.submit(self._add, step, list(samples), list(losses), blocks))

    def publish(self) -> None:
        """Make everything so far durable."""
        self._pending.append(self._pool.submit(self._publish))
        pending, self._pending = self._pending, []
        for each in pending:
            each.result()

    def _add(
        self, step: int, samples: list[int], losses: list[float], blocks: Callable[[], Sequence[LogitBlock]]
    ) -> None:
        if self._steps and step != self._steps[-1] and len(self._data) >= self._most:
            self._publish()
        found = list(blocks())
        ranks = self._table(found)
        for sample, block in zip(samples, found, strict=True):
            data = planes.encode(self._encoding.planes, ranks, block, self._encoding.columns)
            if self._measured(sample):
                kl = divergence(block, self._encoding.decode(ranks, data))
                measured = {"sampled": len(kl), "kl_sum": float(kl.sum()), "kl_max": float(kl.max())}
                self._fidelity[sample] = measured
            self._data.append(data)
        self._samples += samples
        self._losses += losses
        self._steps += [step] * len(samples)

    def _publish(self) -> None:
        if not self._data:
            return
        meta = {
            "samples": self._samples,
            "steps": self._steps,
            "losses": self._losses,
            "fidelity": {str(sample): measured for sample, measured in self._fidelity.items()},
        }
        name = f"segment-{self._steps[0]:09d}-{self._steps[-1]:09d}-{self._process:05d}.bin"
        write_shard_file(self._folder / name, self._data, meta)
        self._samples, self._steps, self._losses, self._data, self._fidelity = [], [], [], [], {}

    def _table(self, blocks: Sequence[LogitBlock]) -> Ranks:
        """The rank table: there, learnt from these blocks, or awaited."""
        if self._ranks is not None:
            return self._ranks
        path = self._folder / _TABLE
        if self._process == 0 and not path.exists():
            write_shard_file(path, _learn(blocks, self._encoding).blocks(), {}, first_wins=True)
        until = time.monotonic() + _WAIT_S
        while not path.exists():
            if time.monotonic() > until:
                raise StoreError(
                    f"{path} did not come within {_WAIT_S:.0f} s", remedy="process 0 has its reason logged"
                )
            time.sleep(_POLL_S)
        self._ranks = read_table(self._folder, self._encoding.vocabulary)
        return self._ranks


def _learn(blocks: Sequence[LogitBlock], encoding: Encoding) -> Ranks:
    ids = np.concatenate([block.ids for block in blocks])
    if encoding.planes.tables:
        return Ranks.learn(np.concatenate([block.count for block in blocks]), ids, encoding.vocabulary)
    return Ranks.from_counts(np.bincount(ids, minlength=encoding.vocabulary))


def read_table(folder: Path, vocabulary: int) -> Ranks:
    """The rank table of the segments in a folder; raises StoreMissing, StoreDamaged."""
    reader = ShardReader(Folder(folder).file(_TABLE))
    return Ranks.from_blocks([reader.block(number) for number in range(len(reader))], vocabulary)


def drop_after(folder: Path, step: int) -> None:
    """Delete segments of steps past a checkpoint: the training comes by again. For one process, while none writes."""
    remove_leftovers(folder)
    for path in folder.glob("segment-*.bin"):
        if int(path.name.split("-")[2]) > step:
            path.unlink()


class Segments:
    """All segments of a finished training, by sample index; only some are open at a time."""

    def __init__(self, folder: Path) -> None:
        """Read which samples they hold.

        Raises:
            StoreDamaged: a file is not what was written, or two hold one sample.
        """
        self._folder = folder
        self._names = sorted(path.name for path in folder.glob("segment-*.bin"))
        self._reader = functools.lru_cache(maxsize=_OPEN_SEGMENTS)(self._open)
        self._fidelity: dict[int, dict[str, float]] = {}
        found = np.concatenate([np.empty(0, _SEEN), *map(self._seen_in, range(len(self._names)))])
        self._seen = found[np.argsort(found["sample"], kind="stable")]
        self._samples = np.ascontiguousarray(self._seen["sample"])
        twice = np.flatnonzero(self._samples[1:] == self._samples[:-1])
        if len(twice):
            first, second = (self._names[number] for number in self._seen["segment"][twice[0] : twice[0] + 2])
            raise StoreDamaged(
                f"{folder / second}: sample {self._samples[twice[0]]} is in {folder / first} too",
                remedy="train the teacher again, in a directory of its own",
            )

    def _open(self, number: int) -> ShardReader:
        return ShardReader(Folder(self._folder).file(self._names[number]))

    def _seen_in(self, number: int) -> NDArray[Any]:
        meta = self._open(number).meta
        rows = np.empty(len(meta["samples"]), _SEEN)
        rows["sample"], rows["step"], rows["loss"] = meta["samples"], meta["steps"], meta["losses"]
        rows["segment"], rows["block"] = number, np.arange(len(rows))
        self._fidelity |= {int(sample): measured for sample, measured in meta["fidelity"].items()}
        return rows

    @property
    def end(self) -> int:
        """The number behind that of the last sample."""
        return int(self._samples[-1]) + 1 if len(self._samples) else 0

    def require(self, samples: range) -> None:
        """Refuse to go on where one of the samples is not there: raises StoreMissing that names the first."""
        missing = np.setdiff1d(np.arange(samples.start, samples.stop), self._samples, assume_unique=True)
        if len(missing):
            raise StoreMissing(
                f"{self._folder}: the teacher's training left no distributions of sample {missing[0]} "
                f"({len(missing):,} of {len(samples):,} are missing)",
                remedy="train the teacher again, in a directory of its own",
            )

    def block(self, sample: int) -> bytes:
        """The encoded distributions of a sample, checked."""
        row = self._row(sample)
        # a copy: a view would keep its segment open
        return bytes(self._reader(int(row["segment"])).block(int(row["block"])))

    def seen(self, sample: int) -> tuple[int, float]:
        """At which step the teacher saw the sample, and its loss there, nats a token."""
        row = self._row(sample)
        return int(row["step"]), float(row["loss"])

    def fidelity(self, sample: int) -> dict[str, float]:
        """How near a sample's encoded distributions are to the captured ones, where that was measured."""
        return self._fidelity[sample]

    def _row(self, sample: int) -> Any:
        place = int(np.searchsorted(self._samples, sample))
        if place == len(self._samples) or self._samples[place] != sample:
            self.require(range(sample, sample + 1))
        return self._seen[place]
