"""The codec of the logit store, "rank-gap planes": one sequence's truncated distributions as seven small byte planes.

Kept ids are mostly frequent ones. With the vocabulary ranked by how often an id is kept, a position's ranks in rising
order have small gaps; gaps minus one are stored as byte planes. A probability p is stored as round(L·(1-(p/p1)^(1/4))),
p1 being the position's largest: the fourth root spends the levels evenly over what matters to the gradient. Decoding
looks the levels up, normalises, and scales by the kept mass. Each plane is compressed by zstd, level 1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

COLUMNS = ("entropy", "label_logprob")
"""Optional per-position columns, stored as float16."""


@dataclass(frozen=True)
class Codec:
    """How values are stored. `levels`: companded to that many levels; None: floats of `width` bytes."""

    name: str
    levels: int | None
    width: int


CODECS = {
    codec.name: codec
    for codec in (
        Codec("rank-gap-63", 63, 1),
        Codec("rank-gap-127", 127, 1),
        Codec("rank-gap-float16", None, 2),
        Codec("lossless", None, 4),
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
    """[M] natural-log probabilities of the full softmax at τ=1."""
    mass: NDArray[np.float32]
    """[L] kept probability mass."""
    entropy: NDArray[np.float32] | None = None
    """[L] entropy of the full softmax, nats."""
    label_logprob: NDArray[np.float32] | None = None
    """[L] log-probability of the label."""


@dataclass(frozen=True)
class Ranks:
    """A permutation of the vocabulary: `id_of[rank]` and its inverse `rank_of[id]`, int32[V]."""

    id_of: NDArray[np.int32]
    rank_of: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        inverse = np.empty_like(self.id_of)
        inverse[self.id_of] = np.arange(len(self.id_of), dtype=np.int32)
        object.__setattr__(self, "rank_of", inverse)

    @classmethod
    def from_counts(cls, counts: NDArray[np.integer[Any]]) -> Ranks:
        """Most frequent first; ties to the lower id."""
        return cls(np.argsort(-counts.astype(np.int64), kind="stable").astype(np.int32))

    @property
    def gap_planes(self) -> int:
        """Bytes of a gap."""
        vocabulary = len(self.id_of)
        return 1 if vocabulary <= 1 << 8 else 2 if vocabulary <= 1 << 16 else 3


@dataclass(frozen=True)
class Decoded:
    """Rectangular distributions: falling probability in each row, padded with id 0 and log-probability -inf."""

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
    codec: Codec, logprobs: NDArray[np.float32], first: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[Any]:
    """Codes that rise as the probability falls: uint8, uint16 or uint32 of [M]."""
    if codec.levels is None:
        # The bits of floats that are not negative are in the order of the floats. (0 - x, not -x: no negative zero.)
        bits: NDArray[Any] = np.maximum(0 - logprobs, 0).astype(f"f{codec.width}").view(f"u{codec.width}")
        return bits
    root = np.exp((logprobs - np.repeat(logprobs[first], count)) * np.float32(0.25))
    level: NDArray[np.float32] = codec.levels - np.maximum(np.rint(root * codec.levels), 1)
    return level.astype(np.uint8)


def _level_probabilities(levels: int) -> NDArray[np.float32]:
    """Code → p/p1; 0 for what is no code."""
    table: NDArray[np.float64] = (np.maximum(levels - np.arange(256), 0) / levels) ** 4
    return table.astype(np.float32)


_PADDING = {"rank-gap-63": 255, "rank-gap-127": 255, "rank-gap-float16": 0x7C00, "lossless": 0x7F800000}
"""The code of log-probability -inf, above all others: what rows are filled up with."""

_PROBABILITY = {c.levels: _level_probabilities(c.levels) for c in CODECS.values() if c.levels}
with np.errstate(divide="ignore"):
    _LOG_PROBABILITY = {levels: np.log(table) for levels, table in _PROBABILITY.items()}


# --- planes ---------------------------------------------------------------------------------------------------------


def encode(codec: Codec, ranks: Ranks, block: LogitBlock, columns: Sequence[str] = ()) -> bytes:
    """One block. The caller has checked it (`pdforge.store.writer`)."""
    count = block.count.astype(np.int64)
    first = np.cumsum(count) - count
    bits = 8 * codec.width
    key_type = np.dtype(np.uint32 if bits == 8 else np.uint64)
    keys = ranks.rank_of.take(block.ids).astype(key_type) << key_type.type(bits)
    keys |= _codes(codec, block.logprobs, first, count)
    rows, filled = _rows(keys, count, int(count.max()), (1 << 8 * key_type.itemsize) - 1)
    keys = rows[filled]
    rank = (keys >> key_type.type(bits)).astype(np.int32)
    gap = np.diff(rank, prepend=np.int32(0)) - 1
    gap[first] = rank[first]
    value = keys.astype(f"u{codec.width}")

    planes = [(count - 1).astype(np.uint8)]
    if codec.levels is None:
        planes.append(block.mass.astype("<f4").view(np.uint8))
        planes += _bytes_of(value, codec.width)
    else:
        largest = np.maximum.reduceat(value, first)
        planes += [_mass_codes(block.mass), largest, np.repeat(largest, count) - value]
    planes += _bytes_of(gap, ranks.gap_planes)
    planes += [getattr(block, name).astype("<f2").view(np.uint8) for name in columns]

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
    planes, entries = _unpack(codec, ranks, data, columns)
    if len(planes[0]) != length:
        raise CorruptBlockError("not as many positions as the store's sequences")
    count = planes[0].astype(np.int64) + 1
    first = np.cumsum(count) - count
    if count.sum() != entries or count.max(initial=0) > width:
        raise CorruptBlockError("counts do not fit the entries")
    n_values = 2 if codec.levels else codec.width
    values, gaps = planes[2 : 2 + n_values], planes[2 + n_values : 2 + n_values + ranks.gap_planes]

    # Ranks: a running sum of the gaps that starts anew at each position.
    gap = _joined(gaps, np.int32) + np.int32(1)
    gap[first] -= 1
    gap[first[1:]] -= np.add.reduceat(gap, first)[:-1].astype(np.int32)
    rank = np.cumsum(gap, dtype=np.int32)
    if rank.min() < 0 or rank.max() >= len(ranks.id_of):
        raise CorruptBlockError("ids outside the vocabulary")

    # One key per entry, code above id: sorted rows are in falling probability, ties in rising id, padding last.
    key_type = np.dtype(np.uint32 if codec.levels else np.uint64)
    code = np.repeat(values[0], count) - values[1] if codec.levels else _joined(values, np.uint64)
    if code.max() >= (codec.levels or _PADDING[codec.name]):
        raise CorruptBlockError("a value is no code")
    keys = (code.astype(key_type) << key_type.type(24)) | ranks.id_of.take(rank).astype(key_type)
    rows, _ = _rows(keys, count, width, _PADDING[codec.name] << 24)
    ids = (rows & key_type.type(0xFFFFFF)).astype(np.int32)
    rows >>= key_type.type(24)
    if codec.levels:
        mass = _MASS.take(planes[1])
        total = np.add.reduceat(_PROBABILITY[codec.levels].take(code), first)
        logprobs = _LOG_PROBABILITY[codec.levels].take(rows)
        logprobs += np.log(mass / total)[:, None]
    else:
        mass = planes[1].view("<f4").astype(np.float32)
        logprobs = -rows.astype(f"u{codec.width}").view(f"f{codec.width}").astype(np.float32)
    tail = planes[2 + n_values + ranks.gap_planes :]
    extra = {name: plane.view("<f2").astype(np.float32) for name, plane in zip(columns, tail, strict=True)}
    return Decoded(ids, logprobs, mass, extra)


def _unpack(
    codec: Codec, ranks: Ranks, data: bytes | memoryview, columns: Sequence[str]
) -> tuple[list[NDArray[np.uint8]], int]:
    """The planes, decompressed and of the right size, and the number of entries."""
    n = (
        (2 if codec.levels is None else 3)
        + (codec.width if codec.levels is None else 1)
        + ranks.gap_planes
        + len(columns)
    )
    header = 4 * (2 + n)
    if len(data) < header:
        raise CorruptBlockError("cut short")
    length, entries, *sizes = struct.unpack_from(f"<{2 + n}I", data)
    if header + sum(sizes) != len(data) or length < 1 or entries < length:
        raise CorruptBlockError("sizes do not fit")
    if codec.levels is None:
        expected = [length, 4 * length] + [entries] * (codec.width + ranks.gap_planes)
    else:
        expected = [length, length, length] + [entries] * (1 + ranks.gap_planes)
    expected += [2 * length] * len(columns)
    decompressor, view, start, planes = zstandard.ZstdDecompressor(), memoryview(data), header, []
    for size, bytes_ in zip(sizes, expected, strict=True):
        try:
            plane = decompressor.decompress(view[start : start + size], max_output_size=bytes_)
        except (zstandard.ZstdError, MemoryError) as error:
            raise CorruptBlockError(f"a plane does not decompress: {error}") from error
        if len(plane) != bytes_:
            raise CorruptBlockError("a plane has the wrong size")
        planes.append(np.frombuffer(plane, np.uint8))
        start += size
    return planes, entries


def _rows(
    keys: NDArray[Any], count: NDArray[np.int64], width: int, padding: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Ragged keys as rows of `width`, each sorted; and which places are filled (padding sorts last)."""
    filled = np.arange(width, dtype=np.int16) < count.astype(np.int16)[:, None]
    rows = np.full((len(count), width), padding, keys.dtype)
    rows[filled] = keys
    rows.sort(axis=1)
    return rows, filled


def _bytes_of(values: NDArray[Any], width: int) -> list[NDArray[np.uint8]]:
    """Byte planes, lowest first."""
    return [((values >> (8 * i)) & 255).astype(np.uint8) for i in range(width)]


def _joined(planes: Sequence[NDArray[np.uint8]], dtype: Any) -> NDArray[Any]:
    """The numbers whose byte planes these are."""
    joined = planes[-1].astype(dtype)
    for plane in reversed(planes[:-1]):
        joined <<= joined.dtype.type(8)
        joined |= plane
    return joined
