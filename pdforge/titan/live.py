"""The teacher beside the student, in its job: frozen, sharded like it, and cut to what a logit store would hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from pdforge.plan.jobs import HuggingFaceSource, ModelSource
from pdforge.recipe.columns import ENTROPY, QUANTILE_SEQUENCES, SPREAD
from pdforge.recipe.models import Truncation
from pdforge.store.mixture import Mixture
from pdforge.store.tokens import TokenSplit, TokenStore
from pdforge.titan.teacher import Signal, load_teacher


class LiveTeacher:
    """Gives each batch of the student what its loader would have read from a logit store."""

    @dataclass(kw_only=True, slots=True)
    class Config:
        """Which teacher, and what of it is learnt."""

        source: ModelSource | HuggingFaceSource
        """Where its weights are."""
        tokens: str
        """The token store."""
        samples: int
        """Samples that the student reads."""
        truncation: Truncation
        """What is kept of its distributions."""
        precision: Literal["float32", "bfloat16", "float16"]
        """Of its weights and forward pass."""
        spread: bool = False
        """Whether the objective needs the standard deviation of its logits."""
        skip_lowest_entropy: float | None = None
        """Part of the positions, those where its entropy is lowest, that lose their teacher."""

    def __init__(
        self,
        config: Config,
        device: torch.device,
        mesh: DeviceMesh | None,
        micro: int,
        split: TokenSplit | Mixture,
    ) -> None:
        """Load it, see that it is a language model of the text, and measure what is a low entropy.

        A collective of all processes of the job.

        Args:
            config: which.
            device: where it runs.
            mesh: over whose processes its layers are sharded; None: each process holds all of it.
            micro: sequences that it takes at once.
            split: what the student's samples are of.

        Raises:
            EnvironmentFault, StoreMismatch: as `load_teacher`.
            StageFailed: it is no language model of this text.
        """
        self._config, source = config, config.source
        tokens = TokenStore.open(config.tokens)
        model = load_teacher(source, tokens, device, getattr(torch, config.precision), mesh=mesh)
        self._signal = Signal(model, tokens, config.truncation, source.vocabulary, source.sequence_length, source.place)
        self._signal.require_language_model(micro)
        self._columns = ((SPREAD,) if config.spread else ()) + ((ENTROPY,) if config.skip_lowest_entropy else ())
        if config.skip_lowest_entropy:
            entropies = self._entropies(split, min(QUANTILE_SEQUENCES, config.samples, len(split)), micro)
            self._low_entropy = float(np.quantile(entropies, config.skip_lowest_entropy))

    def _entropies(self, split: TokenSplit | Mixture, sequences: int, micro: int) -> NDArray[np.float64]:
        """Of the positions that carry loss, of so many first samples."""
        found = []
        for first in range(0, sequences, micro):
            samples = range(first, min(first + micro, sequences))
            tokens, positions, learnt = split.get_labelled_batch(samples)
            packed = torch.from_numpy(tokens).long()
            inputs, labels = packed[:, :-1], packed[:, 1:]
            kept = self._signal.of(
                inputs, labels, torch.from_numpy(positions).long(), torch.tensor(samples), (ENTROPY,)
            )
            found.append(kept[ENTROPY].cpu().numpy()[learnt])
        return np.concatenate(found).astype(np.float64)

    @torch.no_grad()
    def teach(self, inputs: Tensor, labels: Tensor, positions: Tensor, samples: Tensor) -> list[Tensor]:
        """What `pack` takes besides the labels: ids [B, L, K], log-probabilities [B, L, K] and, where the objective
        needs it, the standard deviation of the logits [B, L]. A collective where the teacher is sharded.

        Args:
            inputs: int64 [B, L].
            labels: int64 [B, L]; what is no label counts for nothing here.
            positions: int64 [B, L], restarting at 0 with each document.
            samples: int64 [B], sample indices.
        """
        kept = self._signal.of(inputs, labels.clamp_min(0), positions, samples, self._columns)
        if "draws" in kept:
            drawn = kept["draws"].float()
            logprobs = (drawn / drawn.sum(-1, keepdim=True)).log()
        else:
            logprobs = kept["logprobs"]
        if self._config.skip_lowest_entropy:
            logprobs = torch.where((kept[ENTROPY] <= self._low_entropy)[..., None], -torch.inf, logprobs)
        return [kept["ids"], logprobs, *([kept[SPREAD]] if self._config.spread else [])]
