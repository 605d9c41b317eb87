"""The order of the vocabulary behind the codec's gaps: one table, or several of which each position uses one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TABLES = 256
"""A position names its table in one byte."""

_ROUNDS = 6
"""Of moving ids between tables; the sixth moves one id in a hundred."""

_SHARE = 300.0
"""Entries' worth of the overall frequencies in every table, for ids that its own positions have hardly shown."""


@dataclass(frozen=True)
class Ranks:
    """T permutations of the vocabulary, and which one a position uses."""

    id_of: NDArray[np.int32]
    """[T, V] rank → id."""
    table_of: NDArray[np.uint8]
    """[V] table of a position whose most probable id is this one."""
    rank_of: NDArray[np.int32] = field(init=False)
    """[T, V] id → rank."""

    def __post_init__(self) -> None:
        inverse = np.empty(self.id_of.shape, np.int32)
        np.put_along_axis(inverse, self.id_of.astype(np.int64), np.arange(self.vocabulary, dtype=np.int32)[None], 1)
        object.__setattr__(self, "rank_of", inverse)

    @property
    def vocabulary(self) -> int:
        """V."""
        return len(self.table_of)

    @property
    def gap_planes(self) -> int:
        """Bytes of a gap."""
        return 1 if self.vocabulary <= 1 << 8 else 2 if self.vocabulary <= 1 << 16 else 3

    @classmethod
    def from_counts(cls, counts: NDArray[np.integer[Any]]) -> Ranks:
        """One table: most frequent first; ties to the lower id."""
        order = np.argsort(-counts.astype(np.int64), kind="stable")
        return cls(order.astype(np.int32)[None], np.zeros(len(counts), np.uint8))

    @classmethod
    def learn(
        cls, count: NDArray[np.integer[Any]], ids: NDArray[np.integer[Any]], vocabulary: int, tables: int = 64
    ) -> Ranks:
        """Up to `tables` tables, from kept ids: `count` [L] of each position, `ids` [M] by falling probability.

        Positions are grouped by their most probable id, and these ids shared out so that their positions' entries are
        most probable under their table's frequencies (k-means with code length for distance; it starts with a table for
        each of the most frequent ones). An id that was never the most probable uses the largest table.
        """
        count, ids = count.astype(np.int64), ids.astype(np.int64)
        leading, leader = np.unique(ids[np.cumsum(count) - count], return_inverse=True)
        positions = np.bincount(leader)
        tables = min(tables, MAX_TABLES, len(leading))
        pairs, times = np.unique(np.repeat(leader, count) * vocabulary + ids, return_counts=True)
        group, entry = np.divmod(pairs, vocabulary)
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        overall = (np.bincount(ids, minlength=vocabulary) + 0.5) / (len(ids) + 0.5 * vocabulary)

        table = np.full(len(leading), -1)
        table[np.argsort(-positions, kind="stable")[:tables]] = np.arange(tables)
        for _ in range(_ROUNDS if tables > 1 else 0):
            weights = np.log(_frequencies(table[group], entry, times, tables, overall))
            likely = [np.add.reduceat(row.take(entry) * times, starts) for row in weights]
            table = np.argmax(likely, axis=0)
        table = np.maximum(table, 0)
        frequencies = _frequencies(table[group], entry, times, tables, overall)
        table_of = np.full(vocabulary, np.bincount(table, positions).argmax())
        table_of[leading] = table
        return cls(np.argsort(-frequencies, axis=1, kind="stable").astype(np.int32), table_of.astype(np.uint8))

    def blocks(self) -> list[bytes]:
        """As stored: the tables, int32; for more than one, `table_of` as well."""
        tables = self.id_of.astype("<i4").tobytes()
        return [tables] if len(self.id_of) == 1 else [tables, self.table_of.tobytes()]

    @classmethod
    def from_blocks(cls, blocks: Sequence[bytes | memoryview], vocabulary: int) -> Ranks:
        """What `blocks` gave; raises ValueError for anything else."""
        id_of = np.frombuffer(blocks[0], "<i4").reshape(-1, vocabulary)
        several = len(id_of) > 1
        table_of = np.frombuffer(blocks[1], np.uint8) if several else np.zeros(vocabulary, np.uint8)
        if not (np.sort(id_of, axis=1) == np.arange(vocabulary)).all():
            raise ValueError("not a permutation of the vocabulary")
        if len(blocks) != 1 + several or table_of.shape != (vocabulary,) or table_of.max() >= len(id_of):
            raise ValueError("names tables that are not there")
        return cls(id_of.astype(np.int32), table_of)


def _frequencies(
    table: NDArray[np.int64], entry: NDArray[np.int64], times: NDArray[np.int64], tables: int, overall: NDArray[Any]
) -> NDArray[np.float64]:
    """Smoothed frequency of each id in each table, float64 [T, V]; entries of table -1 count nowhere."""
    known = table >= 0
    size = tables * len(overall)
    own = np.bincount(table[known] * len(overall) + entry[known], times[known], size).reshape(tables, -1)
    frequencies: NDArray[np.float64] = (own + _SHARE * overall) / (own.sum(axis=1, keepdims=True) + _SHARE)
    return frequencies
