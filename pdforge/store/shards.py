"""The container of both stores: blocks of bytes, then an index, so that one block is one range read.

    header   magic `PDFSHARD`, version u16, 6 zero bytes
    blocks   end to end
    index    count u32, length u32 of each block, xxh3-64 of each block, `meta` as JSON
    trailer  offset u64 and length u64 of the index, xxh3-64 of header + index + these two, magic

All integers are little-endian. Every byte is covered by a checksum or compared with a constant.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from pdforge.errors import StoreMismatch
from pdforge.store.files import Bytes, DamagedFileError, Place, publish

MAGIC = b"PDFSHARD"
VERSION = 1

_HEADER = struct.Struct("<8sH6x")
_SPAN = struct.Struct("<QQ")
_TRAILER_SIZE = _SPAN.size + 8 + len(MAGIC)


def write_shard_file(
    path: Place, blocks: Sequence[bytes | memoryview], meta: dict[str, Any], *, first_wins: bool = False
) -> None:
    """Publish a shard file with these blocks; atomic and durable, the same bytes for the same arguments."""
    header = _HEADER.pack(MAGIC, VERSION)
    lengths = np.array([len(block) for block in blocks], dtype="<u4")
    sums = np.array([xxhash.xxh3_64_intdigest(block) for block in blocks], dtype="<u8")
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    index = struct.pack("<I", len(blocks)) + lengths.tobytes() + sums.tobytes() + text
    span = _SPAN.pack(len(header) + int(lengths.sum(dtype=np.int64)), len(index))
    checksum = struct.pack("<Q", xxhash.xxh3_64_intdigest(header + index + span))
    publish(path, [header, *blocks, index, span, checksum, MAGIC], first_wins=first_wins)


class ShardReader:
    """One shard file. Reading a block checks its checksum.

    Raises:
        StoreMismatch: written by a later pdforge.
        StoreDamaged: it is not what was written: empty, cut short, overwritten, another file.
    """

    def __init__(self, file: Bytes) -> None:
        self.file = file
        self.name = file.name
        if file.size < _HEADER.size + 4 + _TRAILER_SIZE:
            raise DamagedFileError(self.name, f"{file.size} bytes are too few for a shard: empty or cut short")
        header = bytes(file.read(0, _HEADER.size))
        trailer = bytes(file.read(file.size - _TRAILER_SIZE, file.size))
        starts, ends = header[:8] == MAGIC, trailer[-8:] == MAGIC
        if not starts and not ends:
            raise DamagedFileError(self.name, "not a shard file of pdforge, or overwritten")
        if not starts or not ends:
            raise DamagedFileError(self.name, "its end is missing" if starts else "its start is overwritten")
        span, (expected,) = trailer[: _SPAN.size], struct.unpack_from("<Q", trailer, _SPAN.size)
        offset, length = _SPAN.unpack(span)
        if offset < _HEADER.size or offset + length + _TRAILER_SIZE != file.size:
            raise DamagedFileError(self.name, "its trailer does not fit its size: cut short or overwritten")
        index = bytes(file.read(offset, offset + length))
        if xxhash.xxh3_64_intdigest(header + index + span) != expected:
            raise DamagedFileError(self.name, "checksum of the index does not hold")
        self.digest = f"{expected:016x}"
        """xxh3-64 of the index, hex; it holds the blocks' checksums, so it stands for the whole file."""
        _, version = _HEADER.unpack(header)
        if version != VERSION:
            raise StoreMismatch(
                f"{self.name}: shard format {version}; this pdforge reads format {VERSION}", remedy="update pdforge"
            )
        (count,) = struct.unpack_from("<I", index)
        self._lengths = np.frombuffer(index, "<u4", count, 4)
        self.sums = np.frombuffer(index, "<u8", count, 4 + 4 * count)
        """xxh3-64 of each block."""
        self._offsets = _HEADER.size + np.concatenate(([0], np.cumsum(self._lengths, dtype=np.int64)))
        self.meta: dict[str, Any] = json.loads(index[4 + 12 * count :])
        if self._offsets[-1] != offset:
            raise DamagedFileError(self.name, "blocks and index do not meet")

    def __len__(self) -> int:
        return len(self._lengths)

    def block(self, number: int) -> bytes | memoryview:
        """Block `number`, checked."""
        start, stop = int(self._offsets[number]), int(self._offsets[number + 1])
        data = self.file.read(start, stop)
        if xxhash.xxh3_64_intdigest(data) != int(self.sums[number]):
            raise DamagedFileError(self.name, "checksum does not hold", number)
        return data
