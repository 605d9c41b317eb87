"""The distillation objective as a torchtitan loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import spmd_types as spmd
import torch
from torch import Tensor
from torchtitan.components.loss import BaseLoss, ChunkedLossWrapper, cross_entropy_loss
from torchtitan.config import CompileConfig
from torchtitan.distributed.spmd_types import current_spmd_mesh, spmd_mesh_size
from torchtitan.distributed.utils import get_spmd_backend

from pdforge.distill.loss import VocabularyShard, mixed_loss
from pdforge.distill.target import soften
from pdforge.titan.packing import unpack


class DistillationLoss(BaseLoss):
    """(1-α)·L_lm + α·L_kd over the global number of labels; plain cross-entropy on labels without a teacher (held-out
    text).

    The trainer sets α before each step by writing into `alpha`, and reads the sums of the step from `sums`; both are
    written in place, so that nothing is compiled, or captured, twice.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseLoss.Config):
        """The objective of a recipe."""

        kind: str = "kld"
        """`kld` or `nll`."""
        temperature: float = 1.0
        """τ of the teacher."""
        vocabulary: int = 0
        """Size of the whole vocabulary."""

    def __init__(self, config: Config, *, compile_config: CompileConfig | None = None) -> None:
        self._subtract_entropy = config.kind == "kld"
        self._temperature = config.temperature
        self._vocabulary = config.vocabulary
        self._loss = mixed_loss
        self.alpha = torch.zeros(())
        self.sums = torch.zeros(2)
        self.warmup_calls = 0
        if compile_config is not None and compile_config.enable and "loss" in compile_config.components:
            self._loss = torch.compile(mixed_loss, backend=compile_config.backend)

    def to(self, device: torch.device) -> None:
        """Put α and the sums on the device, before anything is compiled."""
        self.alpha, self.sums = self.alpha.to(device), self.sums.to(device)

    def __call__(
        self, pred: Tensor, labels: Tensor, global_valid_tokens: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of this rank's positions over the number of labels of all ranks.

        Args:
            pred: logits [B, L, V] (this rank's part of V under tensor parallelism).
            labels: packed int32 [B, L, 1+2K], or plain int64 [B, L].
            global_valid_tokens: number of labels of the step; None for a plain sum.
        """
        if labels.dim() < pred.dim():
            loss = cross_entropy_loss(pred, labels, global_vocab_size=self._vocabulary)
            return loss if global_valid_tokens is None else loss / global_valid_tokens, {}
        checking = spmd.is_type_checking()
        with spmd.no_typecheck():
            plain, ids, logprobs = unpack(labels)
            result = self._loss(
                pred.flatten(0, 1),
                plain.flatten(),
                soften(ids.flatten(0, 1), logprobs.flatten(0, 1), self._temperature),
                self.alpha,
                subtract_entropy=self._subtract_entropy,
                shard=self._shard(),
            )
            scale = 1.0 if global_valid_tokens is None else 1.0 / global_valid_tokens
            self._record(torch.stack([result.lm, result.kd]) * scale)
            loss = result.total * scale
            if checking:
                spmd.assert_type(loss, {"dp": spmd.P, "cp": spmd.P, "tp": spmd.I})
        return loss, {}

    def _record(self, sums: Tensor) -> None:
        # a pipeline's first call infers shapes with garbage activations, which must not reach the metrics
        if self.warmup_calls > 0:
            self.warmup_calls -= 1
        else:
            self.sums += sums

    def _shard(self) -> VocabularyShard | None:
        if get_spmd_backend() != "spmd_types" or spmd_mesh_size("tp") <= 1:
            return None
        group = current_spmd_mesh().get_group("tp")
        part = -(-self._vocabulary // group.size())
        return VocabularyShard(group, min(self._vocabulary, part * group.rank()))


def innermost(loss: BaseLoss) -> BaseLoss:
    """The loss on logits, inside the wrapper that cuts the sequence into chunks."""
    return loss.loss_fn if isinstance(loss, ChunkedLossWrapper) else loss
