"""What is kept of a teacher's distributions, from its logits, on their device: the same for every mode of capture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdforge.distill.sampling import sample
from pdforge.distill.statistics import statistics
from pdforge.distill.truncation import truncate
from pdforge.recipe.models import Sample, Truncation

LOGITS_AT_ONCE = 64 * 2**20
"""Logits, in numbers, that exist at one time: 256 MiB in float32; a quarter for samples, whose sums take int64."""

Kept = dict[str, Tensor]
"""Everything that is stored, by name: `count`, `ids`, `logprobs` and `mass` of truncated distributions
(`pdforge.distill.truncation`), `count`, `ids` and `draws` of sampled ones (`pdforge.distill.sampling`), and columns.
"""


@dataclass(frozen=True)
class Keeper:
    """Keeps of distributions what a recipe says.

    Attributes:
        truncation: what is kept.
        columns: figures of the whole distribution (`pdforge.distill.statistics`).
    """

    truncation: Truncation
    columns: tuple[str, ...]

    @torch.no_grad()
    def keep(self, logits: Tensor, labels: Tensor, samples: Tensor, places: Tensor) -> Kept:
        """What is kept of N distributions: [N], or [N, K] padded.

        Args:
            logits: [N, V], any floating dtype; -inf is a token that cannot occur.
            labels: int64 [N], the true next tokens.
            samples: int64 [N], sample index of each position.
            places: int64 [N], the position's place in its sequence.
        """
        kind, figures = self.truncation, statistics(logits, labels, self.columns)
        if isinstance(kind, Sample):
            drawn = sample(logits, kind.draws, seed=kind.seed, samples=samples, places=places)
            return {"count": drawn.count, "ids": drawn.ids, "draws": drawn.draws, **figures}
        cut = truncate(logits, kind.top_p, kind.top_k)
        return {"count": cut.count, "ids": cut.ids, "logprobs": cut.logprobs, "mass": cut.mass, **figures}

    def keep_sequences(
        self, hidden: Tensor, labels: Tensor, samples: Tensor, logits_of: Callable[[Tensor], Tensor], vocabulary: int
    ) -> Kept:
        """What is kept of whole sequences, from a part of their logits at a time: [B, L], or [B, L, K] padded.

        Args:
            hidden: [B, L, …], final hidden states; on their device everything is done.
            labels: int64 [B, L].
            samples: int64 [B], sample indices.
            logits_of: logits [N, V] of hidden states [N, …].
            vocabulary: V.
        """
        shape, device = labels.shape, hidden.device
        flat = (
            hidden.flatten(0, 1),
            labels.to(device).flatten(),
            samples.to(device)[:, None].expand(shape).flatten(),
            torch.arange(shape[1], device=device).expand(shape).flatten(),
        )
        rows = max(1, LOGITS_AT_ONCE // (4 if isinstance(self.truncation, Sample) else 1) // vocabulary)
        chunks = [
            self.keep(logits_of(states), labels, samples, places)
            for states, labels, samples, places in zip(*(torch.split(part, rows) for part in flat), strict=True)
        ]
        whole = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
        return {name: part.reshape(*shape, *part.shape[1:]) for name, part in whole.items()}
