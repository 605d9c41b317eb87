"""One sequence's distributions as they come from a teacher's device, as a block for the logit store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdforge.store.codec import LogitBlock


def blocks_of(parts: Mapping[str, NDArray[Any]], columns: Sequence[str]) -> Iterator[LogitBlock]:
    """A block for each of B sequences.

    Args:
        parts: what `pdforge.distill.capture` keeps, by name: [B, L], or [B, L, K] padded.
        columns: those of `parts` that are columns of the store.
    """
    for row in range(len(parts["count"])):
        yield _block({name: part[row] for name, part in parts.items()}, columns)


def _block(parts: dict[str, NDArray[Any]], columns: Sequence[str]) -> LogitBlock:
    count, ids = parts["count"], parts["ids"]
    inside = np.arange(ids.shape[1]) < count[:, None]
    extra = {name: parts[name] for name in columns}
    if "draws" in parts:
        return replace(LogitBlock.sampled(count, ids[inside], parts["draws"][inside]), **extra)
    return LogitBlock(
        count=count.astype(np.uint16),
        ids=ids[inside].astype(np.int32),
        logprobs=parts["logprobs"][inside],
        mass=parts["mass"],
        **extra,
    )
