"""The codec of the logit store, "rank-gap planes": one sequence's truncated distributions as a few small byte planes.

Kept ids are mostly frequent ones. With the vocabulary ranked by how often an id is kept, a position's ranks in rising
order have small gaps; gaps minus one are stored as byte planes. A probability p is stored as round(L·(1-(p/p1)^(1/4))),
p1 being the position's largest: the fourth root spends the levels evenly over what matters to the gradient. Decoding
looks the levels up, normalises, and scales by the kept mass. Each plane is compressed by zstd, level 1.

`docs/store.md` specifies the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray

from pdforge.store.ranks import Ranks

V = TypeVar("V", bound=np.generic)

COLUMNS = {"entropy": "<f2", "standard_deviation": "<f2", "logsumexp": "<f4", "label_logprob": "<f2"}
"""Optional per-position columns, and how they are stored."""


@dataclass(frozen=True)
class Codec:
    """How values and ids are stored.

    `levels`: of companded probabilities (`values` "levels"). `width`: bytes of another value. `tables`: whether a
    position names one of several rank tables.
    """

    name: str
    values: Literal["levels", "floats", "draws"]
    levels: int = 0
    width: int = 1
    tables: bool = False

    @property
    def limit(self) -> int:
        """The code above all others: of probability 0, of log-probability -inf, of no draw."""
        return {"levels": self.levels, "floats": 0x7C00 if self.width == 2 else 0x7F800000, "draws": 0xFFFF}[
            self.values
        ]


CODECS = {
    codec.name: codec
    for codec in (
        Codec("rank-gap-63", "levels", levels=63),
        Codec("rank-gap-127", "levels", levels=127),
        Codec("rank-gap-float16", "floats", width=2),
        Codec("lossless", "floats", width=4),
        Codec("context-40", "levels", levels=40, tables=True),
        Codec("context-63", "levels", levels=63, tables=True),
        Codec("sampled", "draws", width=2),
    )
}
DEFAULT_CODEC = "rank-gap-63"


@dataclass(frozen=True)
class LogitBlock:
    """The teacher's truncated distributions for one sequence of L positions, M entries in all.

    Within a position entries are in falling probability (ties: rising id), at least one.
    """

    count: NDArray[np.uint16]
    """[L] entries of each position."""
    ids: NDArray[np.int32]
    """[M] token ids, position after position."""
    logprobs: NDArray[np.float32]
    """[M] natural-log probabilities of the full softmax at τ=1; of sampled targets, of the draws."""
    mass: NDArray[np.float32]
    """[L] kept probability mass; 1 for sampled targets."""
    draws: NDArray[np.uint16] | None = None
    """[M] how often each id was drawn, for codec `sampled` alone."""
    entropy: NDArray[np.float32] | None = None
    """[L] entropy of the full softmax, nats."""
    standard_deviation: NDArray[np.float32] | None = None
    """[L] standard deviation of the logits over the vocabulary."""
    logsumexp: NDArray[np.float32] | None = None
    """[L] of the logits: what a log-probability is short of its logit."""
    label_logprob: NDArray[np.float32] | None = None
    """[L] log-probability of the label."""

    @classmethod
    def sampled(cls, count: NDArray[np.integer[Any]], ids: NDArray[Any], draws: NDArray[np.integer[Any]]) -> LogitBlock:
        """Of `draws` [M] draws of each of the ids [M], in falling number (ties: rising id)."""
        first = np.cumsum(count.astype(np.int64)) - count
        total = np.repeat(np.add.reduceat(draws.astype(np.int64), first), count)
        return cls(
            count=count.astype(np.uint16),
            ids=ids.astype(np.int32),
            logprobs=_log_share(draws, total),
            mass=np.ones(len(count), np.float32),
            draws=draws.astype(np.uint16),
        )


@dataclass(frozen=True)
class Decoded:
    """Rectangular distributions, padded at each row's end with id 0 and log-probability -inf.

    A row is in the order of the rank table until `ordered` sorts it.
    """

    ids: NDArray[np.int32]
    """[L, K]"""
    logprobs: NDArray[np.float32]
    """[L, K]"""
    mass: NDArray[np.float32]
    """[L]"""
    columns: dict[str, NDArray[np.float32]]
    """name → [L]"""


class CorruptBlockError(ValueError):
    """Bytes that no encoder wrote."""


# --- kept mass in one byte: even steps of its logit, so that masses near 0 and near 1 both keep relative precision ---

_MASS = np.append(1 / (1 + np.exp(14 - np.arange(255) * (30 / 254))), 1.0).astype(np.float32)
"""Code → mass; 255 is exactly 1."""


def _mass_codes(mass: NDArray[np.float32]) -> NDArray[np.uint8]:
    inside = np.clip(mass.astype(np.float64), 1e-9, 1 - 1e-9)
    codes = np.clip(np.rint((np.log(inside / (1 - inside)) + 14) * (254 / 30)), 0, 254)
    return np.where(mass >= 1, 255, codes).astype(np.uint8)


# --- values ---------------------------------------------------------------------------------------------------------


def _codes(
    codec: Codec, block: LogitBlock, first: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.unsignedinteger[Any]]:
    """Codes that rise as the probability falls: uint8, uint16 or uint32 of [M]."""
    if codec.values == "draws":
        assert block.draws is not None
        return codec.limit - block.draws
    if codec.values == "floats":
        # The bits of floats that are not negative are in the order of the floats. (0 - x, not -x: no negative zero.)
        bits: NDArray[Any] = np.maximum(0 - block.logprobs, 0).astype(f"f{codec.width}").view(f"u{codec.width}")
        return bits
    root = np.exp((block.logprobs - np.repeat(block.logprobs[first], count)) * np.float32(0.25))
    level: NDArray[np.float32] = codec.levels - np.maximum(np.rint(root * codec.levels), 1)
    return level.astype(np.uint8)


def _log_share(draws: NDArray[Any], total: NDArray[Any]) -> NDArray[np.float32]:
    """log(draws/total) in float32, -inf for no draws."""
    with np.errstate(divide="ignore"):
        share: NDArray[np.float32] = np.log(draws / total).astype(np.float32)
    return share


with np.errstate(divide="ignore"):
    _LOG_PROBABILITY = {
        levels: (4 * np.log(np.maximum(levels - np.arange(256), 0) / levels)).astype(np.float32)
        for levels in {codec.levels for codec in CODECS.values()} - {0}
    }
"""Levels → code → log(p/p1); -inf for what is no code."""


# --- planes ---------------------------------------------------------------------------------------------------------


def encode(codec: Codec, ranks: Ranks, block: LogitBlock, columns: Sequence[str] = ()) -> bytes:
    """One block. The caller has checked it (`pdforge.store.writer`)."""
    count = block.count.astype(np.int64)
    first = np.cumsum(count) - count
    bits = 8 * codec.width
    key_type = np.dtype(np.uint32 if bits == 8 else np.uint64)
    table = ranks.table_of.take(block.ids[first])
    place = block.ids + np.repeat(table * np.int64(ranks.vocabulary), count) if codec.tables else block.ids
    keys = ranks.rank_of.reshape(-1).take(place).astype(key_type) << key_type.type(bits)
    keys |= _codes(codec, block, first, count)
    filled = _filled(count, int(count.max()))
    rows = _rows(keys, filled, key_type.type((1 << 8 * key_type.itemsize) - 1))
    rows.sort(axis=1)
    keys = rows[filled]
    rank = (keys >> key_type.type(bits)).astype(np.int32)
    gap = np.diff(rank, prepend=np.int32(0)) - 1
    gap[first] = rank[first]
    value = keys.astype(f"u{codec.width}")

    planes = [(count - 1).astype(np.uint8)]
    if codec.tables:
        planes.append(table)
    if codec.values == "levels":
        largest = np.maximum.reduceat(value, first)
        planes += [_mass_codes(block.mass), largest, np.repeat(largest, count) - value]
    else:
        planes.append(block.mass.astype("<f4").view(np.uint8))
        planes += _bytes_of(value, codec.width)
    planes += _bytes_of(gap, ranks.gap_planes)
    planes += [getattr(block, name).astype(COLUMNS[name]).view(np.uint8) for name in columns]

    compressor = zstandard.ZstdCompressor(level=1, write_content_size=False, write_checksum=False)
    packed = [compressor.compress(plane.tobytes()) for plane in planes]
    return struct.pack(f"<{2 + len(packed)}I", len(count), len(rank), *map(len, packed)) + b"".join(packed)


def decode(
    codec: Codec, ranks: Ranks, data: bytes | memoryview, *, length: int, width: int, columns: Sequence[str] = ()
) -> Decoded:
    """A block of `length` positions as rows of `width` entries.

    Raises:
        CorruptBlockError: no encoder wrote these bytes. (The container's checksum is checked before.)
    """
    planes = _Planes(codec, ranks, data, length, columns)
    count = planes.positions("u1").astype(np.int64) + 1
    end = np.cumsum(count)
    if end[-1] != planes.entries or count.max() > width:
        raise CorruptBlockError("counts do not fit the entries")
    table = planes.positions("u1") if codec.tables else None
    if codec.values == "levels":
        mass = _MASS.take(planes.positions("u1"))
        code = np.repeat(planes.positions("u1"), count)
        code -= planes.values(1)
    else:
        mass = planes.positions("<f4")
        code = planes.values(codec.width)
    if code.max() >= codec.limit:
        raise CorruptBlockError("a value is no code")
    ids = _ids(ranks, planes.values(ranks.gap_planes), count, end, table)
    extra = {name: planes.positions(COLUMNS[name]).astype(np.float32) for name in columns}

    filled = _filled(count, width)
    logprobs = _rows(_logprobs(codec, code, mass, end - count, count), filled, np.float32(-np.inf))
    return Decoded(_rows(ids, filled, np.int32(0)), logprobs, mass, extra)


def ordered(decoded: Decoded) -> Decoded:
    """The same rows in falling probability, ties in rising id: the order of capture."""
    # One key per entry. The bits of floats that are not negative are in the order of the floats; padding is last.
    keys = np.maximum(0 - decoded.logprobs, 0).view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= decoded.ids.view(np.uint32)
    keys.sort(axis=1)
    ids = (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)
    keys >>= np.uint64(32)
    return replace(decoded, ids=ids, logprobs=0 - keys.astype(np.uint32).view(np.float32))


def _logprobs(
    codec: Codec,
    code: NDArray[np.unsignedinteger[Any]],
    mass: NDArray[np.float32],
    first: NDArray[np.int64],
    count: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Log-probabilities [M] of codes."""
    if codec.values == "floats":
        return -code.view(f"f{codec.width}").astype(np.float32)
    if codec.values == "draws":
        draws = codec.limit - code
        return _log_share(draws, np.repeat(np.add.reduceat(draws, first, dtype=np.int64), count))
    share = (codec.levels - code) * np.float32(1 / codec.levels)
    share *= share
    share *= share
    scale: NDArray[np.float32] = np.log(mass / np.add.reduceat(share, first))
    logprobs = _LOG_PROBABILITY[codec.levels].take(code)
    logprobs += np.repeat(scale, count)
    return logprobs


def _ids(
    ranks: Ranks,
    gap: NDArray[np.unsignedinteger[Any]],
    count: NDArray[np.int64],
    end: NDArray[np.int64],
    table: NDArray[np.uint8] | None,
) -> NDArray[np.int32]:
    """Ids [M] from gaps: ranks are a running sum of gaps plus one, taken anew at each position."""
    rank = gap.astype(np.uint32)
    rank += np.uint32(1)
    np.cumsum(rank, dtype=np.uint32, out=rank)  # may wrap; so does what is subtracted
    before = np.ones(len(count), np.uint32)
    before[1:] += rank[end[:-1] - 1]
    rank -= np.repeat(before, count)
    if rank.max() >= ranks.vocabulary:
        raise CorruptBlockError("ids outside the vocabulary")
    if table is None:
        ids: NDArray[np.int32] = ranks.id_of[0].take(rank)
        return ids
    if table.max() >= len(ranks.id_of):
        raise CorruptBlockError("a rank table that is not there")
    place = np.repeat(table.astype(np.int64) * ranks.vocabulary, count)
    place += rank
    return ranks.id_of.reshape(-1).take(place)


class _Planes:
    """The planes of a block, decompressed one after the other; raises CorruptBlockError."""

    def __init__(
        self, codec: Codec, ranks: Ranks, data: bytes | memoryview, length: int, columns: Sequence[str]
    ) -> None:
        n = 1 + codec.tables + 1 + (2 if codec.values == "levels" else codec.width) + ranks.gap_planes + len(columns)
        start = 4 * (2 + n)
        if len(data) < start:
            raise CorruptBlockError("cut short")
        self._length, self.entries, *sizes = struct.unpack_from(f"<{2 + n}I", data)
        if start + sum(sizes) != len(data) or self.entries < self._length:
            raise CorruptBlockError("sizes do not fit")
        if self._length != length:
            raise CorruptBlockError("not as many positions as the store's sequences")
        self._data, self._start, self._sizes = memoryview(data), start, iter(sizes)
        self._decompressor = zstandard.ZstdDecompressor()

    def positions(self, dtype: str) -> NDArray[Any]:
        """[L]: the next plane."""
        item = np.dtype(dtype)
        return np.frombuffer(self._next(self._length * item.itemsize), item)

    def values(self, width: int) -> NDArray[np.unsignedinteger[Any]]:
        """[M]: the numbers whose byte planes, lowest first, are the next `width`."""
        planes = [np.frombuffer(self._next(self.entries), np.uint8) for _ in range(width)]
        if width == 1:
            return planes[0]
        joined: NDArray[Any] = planes[-1].astype(np.uint16 if width == 2 else np.uint32)
        for plane in reversed(planes[:-1]):
            joined <<= joined.dtype.type(8)
            joined |= plane
        return joined

    def _next(self, size: int) -> bytes:
        stop = self._start + next(self._sizes)
        try:
            plane = self._decompressor.decompress(self._data[self._start : stop], max_output_size=size)
        except (zstandard.ZstdError, MemoryError) as error:
            raise CorruptBlockError(f"a plane does not decompress: {error}") from error
        if len(plane) != size:
            raise CorruptBlockError("a plane has the wrong size")
        self._start = stop
        return plane


def _filled(count: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """[L, width]: whether a place of rectangular rows holds an entry."""
    return np.arange(width, dtype=np.uint8) < count.astype(np.uint8)[:, None]


def _rows(values: NDArray[V], filled: NDArray[np.bool_], padding: V) -> NDArray[V]:
    """Ragged values as rows, filled up with `padding`."""
    rows = np.full(filled.shape, padding, values.dtype)
    rows[filled] = values
    return rows


def _bytes_of(values: NDArray[Any], width: int) -> list[NDArray[np.uint8]]:
    """Byte planes, lowest first."""
    return [((values >> (8 * i)) & 255).astype(np.uint8) for i in range(width)]
