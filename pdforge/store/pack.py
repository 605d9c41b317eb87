"""Selected text into the shards of a token store: sequences cut from the streams of the sources, shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdforge.errors import StoreDamaged, StoreMissing
from pdforge.store.files import Folder
from pdforge.store.manifest import Shard
from pdforge.store.selection import Stream
from pdforge.store.shards import ShardReader, write_shard_file
from pdforge.store.tokens import Split, SplitName

SHARD_BYTES = 1 << 26
SHARD_SEQUENCES = 1 << 16
_WINDOW = 1 << 20
"""Sequences whose order is worked out at once."""
_CHUNK = 1 << 20
_BITS = 16


class SplitPacker:
    """The shards of one split. Sequence i of a source is tokens [i·L, (i+1)·L] of its stream."""

    def __init__(
        self,
        output: Path,
        name: SplitName,
        streams: Sequence[Stream],
        sequences: Sequence[int],
        *,
        dtype: np.dtype[Any],
        length: int,
        seed: int,
        identity: str,
    ) -> None:
        self._output, self._name, self._streams = output, name, streams
        self._dtype, self._length, self._seed = dtype, length, seed
        self._meta = {"identity": identity}
        self._bases = np.append(0, np.cumsum(sequences, dtype=np.int64))
        self.sequences = int(self._bases[-1])
        self.shard_sequences = shard_sequences(length, dtype)
        self.shards = -(-self.sequences // self.shard_sequences)

    def missing(self) -> list[int]:
        """Shards that are not there, rising."""
        return [number for number in range(self.shards) if self._reader(number) is None]

    def write(self, numbers: Sequence[int]) -> Iterator[int]:
        """Write these shards; yields each number when its shard is there."""
        per_window = max(1, _WINDOW // self.shard_sequences)
        for start in range(0, self.shards, per_window):
            wanted = [number for number in numbers if start <= number < start + per_window]
            if not wanted:
                continue
            first = start * self.shard_sequences
            order = shuffled(self.sequences, self._seed, first, (start + per_window) * self.shard_sequences)
            for number in wanted:
                at = number * self.shard_sequences - first
                rows = self._rows(order[at : at + self.shard_sequences])
                write_shard_file(self._output / self._file(number), [row.tobytes() for row in rows], self._meta)
                yield number

    def finish(self) -> tuple[Split, bytes]:
        """What the manifest says of the split, and the checksums of its sequences; raises as `ShardReader`."""
        shards, sums = [], []
        for number in range(self.shards):
            reader = ShardReader(Folder(self._output).file(self._file(number)))
            sums.append(reader.sums.tobytes())
            shards.append(
                Shard(file=self._file(number), blocks=len(reader), bytes=reader.file.size, xxh3=reader.digest)
            )
        split = Split(
            sequences=self.sequences,
            documents=sum(stream.documents for stream in self._streams),
            text_bytes=sum(stream.text_bytes for stream in self._streams),
            shards=tuple(shards),
        )
        return split, b"".join(sums)

    def _rows(self, wanted: NDArray[np.int64]) -> NDArray[Any]:
        """The tokens of these sequences, [n, L+1]; read in the order of the text, which touches each part once."""
        rows = np.empty((len(wanted), self._length + 1), self._dtype)
        for place in np.argsort(wanted, kind="stable"):
            sequence = int(wanted[place])
            source = int(np.searchsorted(self._bases, sequence, "right")) - 1
            start = (sequence - int(self._bases[source])) * self._length
            rows[place] = self._streams[source].read(start, self._length + 1)
        return rows

    def _reader(self, number: int) -> ShardReader | None:
        """A shard of this build; None where it is not there or is not one."""
        try:
            reader = ShardReader(Folder(self._output).file(self._file(number)))
        except (StoreMissing, StoreDamaged):
            return None
        return reader if reader.meta == self._meta else None

    def _file(self, number: int) -> str:
        return f"{self._name}-{number:06d}.bin"


def shard_sequences(length: int, dtype: np.dtype[Any]) -> int:
    """Sequences of a shard, where each is `length` + 1 tokens."""
    return max(1, min(SHARD_SEQUENCES, SHARD_BYTES // ((length + 1) * dtype.itemsize)))


def shares_of(total: int, shares: Sequence[float]) -> list[int]:
    """`total` in whole parts that follow `shares` (which add up to 1): what is left goes to the largest remainders."""
    parts = [int(total * share) for share in shares]
    by_remainder = sorted(range(len(parts)), key=lambda n: (parts[n] - total * shares[n], n))
    for number in by_remainder[: total - sum(parts)]:
        parts[number] += 1
    return parts


def shuffled(count: int, seed: int, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
    """Places start … stop-1 of a permutation of range(count), int64.

    It depends on `count` and `seed` alone, on no library's version: indices in the order of their splitmix64 hashes.
    Memory is that of what is asked for, however large `count` is.
    """
    stop = count if stop is None else min(stop, count)
    if start >= stop:
        return np.empty(0, np.int64)
    upto = _keys_upto(count, seed)
    low, high = np.searchsorted(upto, [start, stop - 1], "right")
    keys, indices = [], []
    for first, chunk in _keys(count, seed):
        bins = chunk >> np.uint64(64 - _BITS)
        chosen = np.flatnonzero((bins >= low) & (bins <= high))
        keys.append(chunk[chosen])
        indices.append(first + chosen)
    order = np.argsort(np.concatenate(keys), kind="stable")
    before = int(upto[low - 1]) if low else 0
    found: NDArray[np.int64] = np.concatenate(indices)[order][start - before : stop - before]
    return found


@lru_cache(maxsize=4)
def _keys_upto(count: int, seed: int) -> NDArray[np.int64]:
    """Hashes in each bin and all below it."""
    bins = np.zeros(1 << _BITS, np.int64)
    for _, chunk in _keys(count, seed):
        bins += np.bincount((chunk >> np.uint64(64 - _BITS)).astype(np.int64), minlength=1 << _BITS)
    return np.cumsum(bins)


def _keys(count: int, seed: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """(first index, hashes) of consecutive chunks of range(count)."""
    for first in range(0, count, _CHUNK):
        x = np.arange(first, min(first + _CHUNK, count), dtype=np.uint64)
        x += np.uint64((seed * 0x9E3779B97F4A7C15) % (1 << 64))
        x = x * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        yield first, x ^ (x >> np.uint64(31))
