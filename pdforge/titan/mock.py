"""Batches of the real shapes with nothing in them: for a look at what a training takes before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchtitan.components.dataloader import BaseDataLoader

from pdforge.titan.loader import SAMPLES, TEACHER, StoreLoader


def mock_batch(config: StoreLoader.Config, *, sequences: int, length: int) -> tuple[dict[str, Tensor], Tensor]:
    """What a `StoreLoader` of that configuration yields, in shape and dtype: one document of token 0 a sequence.

    Each teacher, where the loader reads any, gives all probability to token 0.
    """
    tokens = torch.zeros(sequences, length, dtype=torch.long)
    batch = {"input": tokens, "positions": torch.arange(length).expand(sequences, length).contiguous()}
    if config.logits:
        entries, teachers = max(config.top_k, *(each[2] for each in config.also), 0), 1 + len(config.also)
        logprobs = torch.full((sequences, length, teachers * entries), -torch.inf)
        logprobs[..., ::entries] = 0.0
        teacher = [torch.zeros_like(logprobs, dtype=torch.int32), logprobs]
        if config.spread:
            teacher.append(torch.ones(sequences, length, teachers).squeeze(-1))
        batch |= dict(zip(TEACHER, teacher, strict=False))
    if config.named:
        batch[SAMPLES] = torch.zeros(sequences, dtype=torch.long)
    return batch, torch.zeros_like(tokens)


class MockLoader(BaseDataLoader):
    """The same mock batch for ever, in the place of a `StoreLoader` whose stores need not be there."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        """Whose place it takes."""

        like: StoreLoader.Config = field(default_factory=StoreLoader.Config)

    order = None
    """There are no samples to name."""

    def __init__(self, config: Config, *, local_batch_size: int, seq_len: int, **_: Any) -> None:
        self._like, self._sequences, self._length = config.like, local_batch_size, seq_len

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        while True:
            yield mock_batch(self._like, sequences=self._sequences, length=self._length)

    def positions(self, batch: int) -> range:
        """Of no sample."""
        del batch
        return range(0)

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""
