"""What a logit store says about its own quality, measured shard by shard while it is written and summed at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdforge.store.codec import Decoded, LogitBlock
from pdforge.store.spec import Fidelity

MASS_EDGES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Lower edges of the kept mass's bins; the last reaches 1."""


def measure(blocks: Sequence[LogitBlock], top_k: int, decoded: Decoded) -> Fidelity:
    """Fidelity of one shard; `decoded` is its first block, decoded again."""
    kl = divergence(blocks[0], decoded)
    return tally(
        np.concatenate([block.count for block in blocks]).astype(np.int64),
        np.concatenate([block.mass for block in blocks]).astype(np.float64),
        top_k,
        {"sampled": len(kl), "kl_sum": float(kl.sum()), "kl_max": float(kl.max())},
    )


def tally(count: NDArray[np.int64], mass: NDArray[np.float64], top_k: int, measured: Mapping[str, float]) -> Fidelity:
    """Fidelity of positions with these numbers of entries [N] and kept masses [N]; `measured` on some of them."""
    bins = np.bincount(np.searchsorted(MASS_EDGES, mass, side="right") - 1, minlength=len(MASS_EDGES))
    return Fidelity(
        positions=len(count),
        entries=int(count.sum()),
        counts=tuple(np.bincount(count, minlength=top_k + 1).tolist()),
        masses=tuple(bins.tolist()),
        mass_sum=float(mass.sum()),
        sampled=int(measured["sampled"]),
        kl_sum=measured["kl_sum"],
        kl_max=measured["kl_max"],
    )


def summed(parts: Sequence[Fidelity]) -> Fidelity:
    """Fidelity of a store from its shards'."""
    sums: dict[str, Any] = {
        name: sum(getattr(part, name) for part in parts)
        for name in ("positions", "entries", "mass_sum", "sampled", "kl_sum")
    }
    for name in ("counts", "masses"):
        sums[name] = tuple(map(sum, zip(*(getattr(part, name) for part in parts), strict=True)))
    return Fidelity(**sums, kl_max=max(part.kl_max for part in parts))


def divergence(block: LogitBlock, decoded: Decoded) -> NDArray[np.float64]:
    """KL(captured‖decoded) of each position, both renormalised over the kept entries; float64 [L], nats."""
    count = block.count.astype(np.int64)
    first = np.cumsum(count) - count
    position = np.repeat(np.arange(len(count)), count)
    inside = np.arange(decoded.ids.shape[1]) < count[:, None]
    filled, stored = decoded.ids[inside], decoded.logprobs[inside]

    def normalised(logprobs: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float64]:
        by_id = logprobs[np.lexsort((ids, position))].astype(np.float64)
        total: NDArray[np.float64] = np.log(np.add.reduceat(np.exp(by_id), first))
        return by_id - np.repeat(total, count)

    p, q = normalised(block.logprobs, block.ids), normalised(stored, filled)
    divergences: NDArray[np.float64] = np.add.reduceat(np.exp(p) * (p - q), first)
    return np.maximum(divergences, 0)
