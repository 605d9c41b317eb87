"""Conversations and text as one sequence of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pdforge.errors import StoreMismatch
from pdforge.store.order import SampleOrder
from pdforge.store.tokens import LabelledBatch, TokenSplit, TokenStore


class Mixture:
    """Samples of two stores, each kind spread evenly: any stretch of samples holds both in their shares, to one."""

    def __init__(
        self, conversations: TokenStore, text: TokenStore, *, sequences: int, text_sequences: int, text_from: int
    ) -> None:
        """`sequences` of conversations, which are read again in another order when they end, and the samples of the
        text from `text_from` on, `text_sequences` of them.

        Raises:
            StoreMismatch: the stores are of different tokenizers or lengths.
        """
        for field in ("tokenizer", "sequence_length"):
            a, b = (getattr(store.manifest, field) for store in (conversations, text))
            if a != b:
                raise StoreMismatch(f"{field} of the conversations is {a!r}, of the text {b!r}")
        self._splits: tuple[TokenSplit, TokenSplit] = (conversations.split("train"), text.split("train"))
        self._order = SampleOrder(len(self._splits[0]), conversations.manifest.seed)
        self._sequences, self._total, self._text_from = sequences, sequences + text_sequences, text_from

    def __len__(self) -> int:
        return self._total

    @property
    def content(self) -> str:
        """Hashes of all tokens of both stores."""
        return " and ".join(split.content for split in self._splits)

    def place(self, sample: int) -> tuple[TokenSplit, int]:
        """The split that a sample is of, and its index there."""
        before = sample * self._sequences // self._total
        if (sample + 1) * self._sequences // self._total > before:
            return self._splits[0], self._order[before]
        return self._splits[1], self._text_from + sample - before

    def get_labelled_batch(self, indices: Sequence[int]) -> LabelledBatch:
        """As `TokenSplit.get_labelled_batch`: tokens [B, L+1], positions [B, L], whether labels carry loss [B, L]."""
        rows = [split.get_labelled_batch([index]) for split, index in map(self.place, indices)]
        tokens, positions, learnt = (np.concatenate(part) for part in zip(*rows, strict=True))
        return tokens, positions, learnt
