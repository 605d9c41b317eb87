"""Which encoded documents a token store takes: of each source the shortest start that fills its part of both splits.

The held-out split takes the documents of lowest hash. One threshold holds for all sources, so identical documents are
never in both splits, wherever they come from. All of it depends on the encoded text alone, not on who encoded it when;
memory does not grow with the corpus: token counts by the first bits of the hash stand for the documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdforge.store.encoded import EncodedPart, EncodedText

_BITS = 16
"""Bits of a hash that make its bin."""
_OPEN_PARTS = 2
"""Sequences are read in the order of the text, and one may begin in a part and end in the next."""
_NOTHING = -1
"""A threshold below every hash."""


@dataclass
class Source:
    """What is known of one source's encoded text, read part after part."""

    name: str
    text: EncodedText
    units: range
    """Its units' numbers."""
    train: int
    """Tokens that it has to give to the training split."""
    validation: int
    """Tokens that it has to give to the held-out split."""
    parts: list[tuple[int, int]] = field(default_factory=list)
    """(unit, number) of the parts read so far."""
    tokens: int = 0
    documents: int = 0
    threshold: int | None = None
    """Its own: the highest hash that is held out; None until both splits can be filled."""
    _bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << _BITS, np.int64))

    def __post_init__(self) -> None:
        self._next = (self.units.start, 0)

    @property
    def at(self) -> int:
        """The unit that the next part is of: where the source is short, one that has to be encoded (again)."""
        return self._next[0]

    def advance(self) -> bool:
        """Read the next part, if it is there."""
        unit, number = self._next
        while unit in self.units:
            part = self.text.part(unit, number)
            if part is not None:
                self._add(part, (unit, number))
                return True
            if self.text.parts_of(unit) != number:
                break
            unit, number = self._next = (unit + 1, 0)
        return False

    def exhausted(self) -> bool:
        """Whether all that the source has is read."""
        return not self.advance() and self._next[0] not in self.units

    def settle(self) -> bool:
        """Read on until the source alone could fill its part of both splits; whether it can."""
        while self.threshold is None:
            if self.tokens >= self.train + self.validation:
                threshold = self._lowest(self.validation)
                held_out = self.held_out(threshold)
                if held_out >= self.validation and self.tokens - held_out >= self.train:
                    self.threshold = threshold
                    break
            if not self.advance():
                return False
        return True

    def fill(self, threshold: int) -> bool:
        """Read on until the training split is filled by documents above `threshold`; whether it is."""
        while self.tokens - self.held_out(threshold) < self.train:
            if not self.advance():
                return False
        return True

    def held_out(self, threshold: int) -> int:
        """Tokens of documents whose hash is not above `threshold`."""
        if threshold == _NOTHING:
            return 0
        bin_ = threshold >> (64 - _BITS)
        hashes, tokens = self._in_bin(bin_)
        return int(self._bins[:bin_].sum() + tokens[hashes <= np.uint64(threshold)].sum())

    def lacks(self) -> str:
        """What is missing to fill both splits."""
        if not self.documents:
            return f"{self.name} has no text"
        held_out = self.held_out(self._lowest(self.validation))
        return (
            f"{self.name} holds {self.tokens:,} tokens in {self.documents:,} documents; "
            f"{self.train + self.validation:,} are needed: {self.train:,} for training and {self.validation:,} from "
            f"other documents for validation (held out whole: {held_out:,} tokens, which leaves "
            f"{self.tokens - held_out:,})"
        )

    def _add(self, part: EncodedPart, name: tuple[int, int]) -> None:
        self.parts.append(name)
        self._next = (name[0], name[1] + 1)
        self.documents += len(part.tokens)
        self.tokens += int(part.tokens.sum())
        np.add.at(self._bins, (part.hashes >> np.uint64(64 - _BITS)).astype(np.int64), part.tokens)

    def _lowest(self, tokens: int) -> int:
        """The hash up to which documents of lowest hash hold that many tokens; of all, where they hold fewer."""
        if not tokens or not self.tokens:
            return _NOTHING
        upto = np.cumsum(self._bins)
        bin_ = int(np.searchsorted(upto, min(tokens, self.tokens)))
        hashes, counts = self._in_bin(bin_)
        order = np.argsort(hashes, kind="stable")
        before = int(upto[bin_ - 1]) if bin_ else 0
        enough = int(np.searchsorted(before + np.cumsum(counts[order]), min(tokens, self.tokens)))
        return int(hashes[order[enough]])

    def _in_bin(self, bin_: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Hash and tokens of the documents of a bin."""
        hashes, tokens = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for part in self._read():
            inside = part.hashes >> np.uint64(64 - _BITS) == bin_
            hashes.append(part.hashes[inside])
            tokens.append(part.tokens[inside])
        return np.concatenate(hashes), np.concatenate(tokens)

    def _read(self) -> Iterator[EncodedPart]:
        return (self.text.expect(*name) for name in self.parts)


class Selection:
    """What a token store takes of its sources."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.wanting: list[Source] = list(sources)
        """Sources of which more has to be encoded."""
        self.threshold = _NOTHING
        """The highest hash that is held out."""

    def complete(self) -> bool:
        """Whether what is encoded so far fills both splits."""
        self.wanting = [source for source in self.sources if not source.settle()]
        if not self.wanting:
            # A source's own threshold never moves again, so neither does this one.
            self.threshold = max(s.threshold for s in self.sources if s.threshold is not None)
            self.wanting = [source for source in self.sources if not source.fill(self.threshold)]
        return not self.wanting

    def lacks(self) -> str:
        """What is missing where everything is encoded; empty where it is not, or nothing is missing."""
        return next((source.lacks() for source in self.wanting if source.exhausted()), "")

    def streams(self, *, held_out: bool) -> list[Stream]:
        """The documents of one split, of each source."""
        return [Stream(source, self.threshold, held_out=held_out) for source in self.sources]


class Stream:
    """The ids of one source's documents of one split, end to end, read from where they are encoded.

    Kept are runs of consecutive documents: their number follows that of the held-out documents, not the corpus's size.
    """

    def __init__(self, source: Source, threshold: int, *, held_out: bool) -> None:
        needed = source.validation if held_out else source.train
        self._text, self._parts = source.text, source.parts
        self._open = lru_cache(maxsize=_OPEN_PARTS)(source.text.expect)
        self.documents = self.text_bytes = 0
        """Documents that the needed ids are of, whole or in part, and their UTF-8 bytes."""
        runs = [np.empty((0, 3), np.int64)]
        total = 0
        for number, name in enumerate(source.parts if needed else []):
            part = source.text.expect(*name)
            chosen = _below(part.hashes, threshold) == held_out
            runs.append(_runs(part.tokens, chosen, number))
            upto = total + np.cumsum(part.tokens[chosen])
            used = min(int(np.searchsorted(upto, needed)) + 1, len(upto))
            self.documents += used
            self.text_bytes += int(part.text_bytes[chosen][:used].sum())
            total = int(upto[-1]) if len(upto) else total
            if total >= needed:
                break
        self._part, self._offset, lengths = np.concatenate(runs).T
        self._ends = np.cumsum(lengths)

    def read(self, start: int, count: int) -> NDArray[Any]:
        """Ids start … start+count-1; raises StoreError (damaged: see `EncodedPart.ids`)."""
        pieces, run = [], int(np.searchsorted(self._ends, start, "right"))
        while count:
            begin = int(self._offset[run])
            end = begin + int(self._ends[run] - (self._ends[run - 1] if run else 0))
            first = end - (int(self._ends[run]) - start)
            size = min(count, end - first)
            pieces.append(self._open(*self._parts[int(self._part[run])]).ids(first, first + size))
            start, count, run = start + size, count - size, run + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _below(hashes: NDArray[np.uint64], threshold: int) -> NDArray[np.bool_]:
    if threshold == _NOTHING:
        return np.zeros(len(hashes), np.bool_)
    held_out: NDArray[np.bool_] = hashes <= np.uint64(threshold)
    return held_out


def _runs(tokens: NDArray[np.int64], chosen: NDArray[np.bool_], part: int) -> NDArray[np.int64]:
    """Rows (part, first id, ids) of the longest runs of chosen documents; int64 [R, 3]."""
    starts = np.append(0, np.cumsum(tokens))
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False])).astype(np.int8)))
    first, last = edges[::2], edges[1::2]
    begin = starts[first]
    return np.stack([np.full(len(first), part), begin, starts[last] - begin], axis=1)
