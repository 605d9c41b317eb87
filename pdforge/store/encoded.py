"""Encoded text on its way into a token store: files of its `.build` folder, whole under their names or not there.

part-U-N.bin   the N-th piece of unit U of the corpus: length, hash and text bytes of each document; ids in blocks
unit-U.bin     how many parts unit U has; written when all of them are
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pdforge.errors import StoreDamaged, StoreError, StoreMissing
from pdforge.store.chat_encoder import ChatEncoder
from pdforge.store.encoder import Encoder
from pdforge.store.files import Folder
from pdforge.store.shards import ShardReader, write_shard_file

PART_BYTES = 1 << 24
"""Text of one part."""
_BATCH_BYTES = 1 << 21
"""Text that is encoded at once."""
_BLOCK_IDS = 1 << 15
"""Ids under one checksum."""
_COLUMNS = ("<i8", "<u8", "<i8")


class EncodedPart:
    """One part: documents in their order."""

    def __init__(self, reader: ShardReader, dtype: np.dtype[Any]) -> None:
        self._reader, self._dtype = reader, dtype
        self.tokens: NDArray[np.int64] = self._column(0)
        """Ids of each document, the separator included."""
        self.hashes: NDArray[np.uint64] = self._column(1)
        """Seeded hash of each document's text."""
        self.text_bytes: NDArray[np.int64] = self._column(2)
        """UTF-8 bytes of each document."""

    def ids(self, start: int, stop: int) -> NDArray[Any]:
        """Ids start … stop-1 of the part's documents, end to end.

        Raises:
            StoreError: the part is damaged; it is deleted, so that the next start encodes it again.
        """
        first, last = start // _BLOCK_IDS, (stop - 1) // _BLOCK_IDS
        try:
            blocks = [self._block(number) for number in range(first, last + 1)]
        except StoreDamaged as error:
            Path(self._reader.name).unlink(missing_ok=True)
            raise StoreError(
                f"{self._reader.name}: encoded text is damaged, and deleted",
                remedy="start the stage again: it encodes this part again",
            ) from error
        joined = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return joined[start - first * _BLOCK_IDS : stop - first * _BLOCK_IDS]

    def _column(self, number: int) -> NDArray[Any]:
        return np.frombuffer(self._reader.block(number), _COLUMNS[number])

    def _block(self, number: int) -> NDArray[Any]:
        return np.frombuffer(self._reader.block(len(_COLUMNS) + number), self._dtype)


class EncodedText:
    """All parts of one build. `key` is what a part depends on beside its text: parts of another key do not count."""

    def __init__(self, folder: Path, key: list[Any], dtype: np.dtype[Any], *, seed: int) -> None:
        self._folder, self._key, self._dtype, self._seed = folder, key, dtype, seed

    def part(self, unit: int, number: int) -> EncodedPart | None:
        """A part; None where it is not there, is damaged, or is another build's."""
        try:
            reader = self._opened(_part_name(unit, number))
            return None if reader is None else EncodedPart(reader, self._dtype)
        except StoreDamaged:
            return None

    def expect(self, unit: int, number: int) -> EncodedPart:
        """A part that was there before; raises StoreMissing."""
        part = self.part(unit, number)
        if part is None:
            raise StoreMissing(
                f"{self._folder / _part_name(unit, number)}: encoded text is gone", remedy="start the stage again"
            )
        return part

    def parts_of(self, unit: int) -> int | None:
        """How many parts a unit has; None where that is not known yet."""
        reader = self._opened(_unit_name(unit))
        return None if reader is None else int(reader.meta["parts"])

    def encode(self, unit: int, documents: Iterable[str], encoder: Encoder | ChatEncoder) -> Iterator[int]:
        """Write the parts of a unit that are missing, and yield the number of parts so far after each."""
        number = 0
        for texts in _grouped(documents, PART_BYTES):
            if self.part(unit, number) is None:
                self._write(_part_name(unit, number), texts, encoder)
            number += 1
            yield number
        write_shard_file(self._folder / _unit_name(unit), [], {"key": self._key, "parts": number})

    def _write(self, name: str, texts: list[str], encoder: Encoder | ChatEncoder) -> None:
        rows = [row for batch in _grouped(texts, _BATCH_BYTES) for row in encoder.encode(batch)]
        data = [text.encode() for text in texts]
        columns = (
            np.array([len(row) for row in rows], _COLUMNS[0]),
            np.array([xxhash.xxh3_64_intdigest(text, seed=self._seed) for text in data], _COLUMNS[1]),
            np.array([len(text) for text in data], _COLUMNS[2]),
        )
        ids = np.concatenate(rows)
        pieces = [ids[start : start + _BLOCK_IDS] for start in range(0, len(ids), _BLOCK_IDS)]
        blocks = [array.tobytes() for array in (*columns, *pieces)]
        write_shard_file(self._folder / name, blocks, {"key": self._key})

    def _opened(self, name: str) -> ShardReader | None:
        try:
            reader = ShardReader(Folder(self._folder).file(name))
        except (StoreMissing, StoreDamaged):
            return None
        return reader if reader.meta.get("key") == self._key else None


def _part_name(unit: int, number: int) -> str:
    return f"part-{unit:06d}-{number:06d}.bin"


def _unit_name(unit: int) -> str:
    return f"unit-{unit:06d}.bin"


def _grouped(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Consecutive texts, in groups that reach `size` bytes."""
    group: list[str] = []
    total = 0
    for text in texts:
        group.append(text)
        total += len(text.encode())
        if total >= size:
            yield group
            group, total = [], 0
    if group:
        yield group
