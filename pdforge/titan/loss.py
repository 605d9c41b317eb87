"""The distillation objective as a torchtitan loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import spmd_types as spmd
import torch
from torch import Tensor
from torchtitan.components.loss import BaseLoss, ChunkedLossWrapper, cross_entropy_loss
from torchtitan.config import CompileConfig
from torchtitan.distributed.spmd_types import current_spmd_mesh, spmd_mesh_size
from torchtitan.distributed.utils import get_spmd_backend

from pdforge import schedules
from pdforge.distill.divergence import Divergence, divergence
from pdforge.distill.loss import Objective, mixed_loss, sums_of
from pdforge.distill.student import VocabularyShard
from pdforge.distill.teacher import read_teacher
from pdforge.distill.temperature import WTTM, ByEntropy, BySpread, NormKD, Static, Temperature
from pdforge.recipe import models as recipe
from pdforge.recipe.columns import SPREAD, required_columns
from pdforge.titan.packing import unpack


class DistillationLoss(BaseLoss):
    """(1-α)·L_lm + α·L_kd over the global number of labels; plain cross-entropy on labels without a teacher (held-out
    text).

    The trainer calls `start_step` before each step, and reads the sums of the step from `sums`; α, τ and the sums are
    written in place, so that nothing is compiled, or captured, twice.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseLoss.Config):
        """The objective of a recipe."""

        objective: recipe.Objective = field(default_factory=recipe.Objective)
        """As the recipe says it."""
        vocabulary: int = 0
        """Size of the whole vocabulary."""
        weights: tuple[float, ...] = ()
        """Of each teacher's L_kd, where there are several."""

    def __init__(self, config: Config, *, compile_config: CompileConfig | None = None) -> None:
        self._recipe = config.objective
        self._vocabulary, self._weights = config.vocabulary, config.weights or (1.0,)
        self._loss = mixed_loss
        self._spread = bool(required_columns(config.objective) & {SPREAD})
        self.warmup_calls = 0
        self.excess: Callable[[int], float] | None = None
        """Set by the trainer where α `follows_teacher`: nats a token that the teacher of a step was above its end."""
        self.to(torch.device("cpu"))
        if compile_config is not None and compile_config.enable and "loss" in compile_config.components:
            self._loss = torch.compile(mixed_loss, backend=compile_config.backend)

    def to(self, device: torch.device) -> None:
        """Put α, τ and the sums on the device, before anything is compiled."""
        self.alpha = torch.zeros((), device=device)
        self.temperature = torch.ones((), device=device)
        self.sums = torch.zeros(sums_of(len(self._weights)), device=device)
        self._objective = Objective(
            _divergence(self._recipe), self._recipe.tail, _temperature(self._recipe, self.temperature)
        )

    @property
    def follows_teacher(self) -> bool:
        """Whether α depends on how far the teacher was at each step."""
        return isinstance(self._recipe.alpha, recipe.TeacherConvergence)

    def start_step(self, step: int, total: int) -> None:
        """α and τ of a step of `total`, and empty sums."""
        excess = self.excess(step) if self.excess else None
        self.alpha.fill_(schedules.alpha_at(self._recipe.alpha, step, total, excess))
        if (temperature := schedules.temperature_at(self._recipe.temperature, step, total)) is not None:
            self.temperature.fill_(temperature)
        self.sums.zero_()

    def __call__(
        self, pred: Tensor, labels: Tensor, global_valid_tokens: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of this rank's positions over the number of labels of all ranks.

        Args:
            pred: logits [B, L, V] (this rank's part of V under tensor parallelism).
            labels: packed int32 (`pack`) [B, L, 1+2K] or [B, L, 2+2K] of one teacher, or plain int64 [B, L].
            global_valid_tokens: number of labels of the step; None for a plain sum.
        """
        if labels.dim() < pred.dim():
            loss = cross_entropy_loss(pred, labels, global_vocab_size=self._vocabulary)
            return loss if global_valid_tokens is None else loss / global_valid_tokens, {}
        checking = spmd.is_type_checking()
        with spmd.no_typecheck():
            plain, teachers = unpack(labels.flatten(0, 1), len(self._weights), spread=self._spread)
            result = self._loss(
                pred.flatten(0, 1),
                plain,
                [
                    (read_teacher(each.ids, each.logprobs, self._vocabulary, each.spread), weight)
                    for each, weight in zip(teachers, self._weights, strict=True)
                ],
                self.alpha,
                self._objective,
                shard=self._shard(),
            )
            scale = 1.0 if global_valid_tokens is None else 1.0 / global_valid_tokens
            self._record(result.sums * scale)
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


def _divergence(objective: recipe.Objective) -> Divergence:
    match objective.loss:
        case recipe.JSD() as loss:
            return divergence(loss.kind, objective.tail, beta=loss.beta)
        case recipe.MSE() as loss:
            return divergence(loss.kind, objective.tail, on=loss.on)
        case loss:
            return divergence(loss.kind, objective.tail)


def _temperature(objective: recipe.Objective, static: Tensor) -> Temperature:
    match objective.temperature:
        case recipe.NormKD(norm=norm):
            return NormKD(norm)
        case recipe.WTTM(gamma=gamma):
            return WTTM(gamma)
        case recipe.AdaKDSpread() as by:
            return BySpread(by.minimum, by.maximum, by.reference)
        case recipe.AdaKDEntropy() as by:
            return ByEntropy(by.minimum, by.maximum)
    return Static(static)
