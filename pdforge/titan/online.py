"""A teacher's own distributions, stored while it is pre-trained: from the logits of the training's forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spmd_types as spmd
import torch
from torch import Tensor
from torchtitan.components.loss import CrossEntropyLoss
from torchtitan.config import CompileConfig

from pdforge.distill.capture import LOGITS_AT_ONCE, Keeper, Kept
from pdforge.plan.jobs import OnlineCapture, kept
from pdforge.recipe.models import Sample
from pdforge.store.blocks import blocks_of
from pdforge.store.segments import Encoding, SegmentWriter, drop_after

_LOSS = "label_logprob"


class CapturingLoss(CrossEntropyLoss):
    """torchtitan's cross-entropy, bit by bit, that keeps of the logits what is stored.

    The trainer sets `samples` before a micro-step that is to be captured, and takes the parts behind it.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(CrossEntropyLoss.Config):
        """torchtitan's configuration and what is kept."""

        online: OnlineCapture | None = None
        """What is kept, and from which step on."""

    def __init__(self, config: Config, *, compile_config: CompileConfig | None = None) -> None:
        super().__init__(config, compile_config=compile_config)
        assert config.online is not None
        self.online = config.online
        self.samples: Tensor | None = None
        """Sample indices [B] of the micro-step; None: nothing is kept."""
        self._columns = tuple(sorted({*self.online.columns, _LOSS}))
        self._parts: list[Kept] = []
        self._place = 0

    def __call__(
        self, pred: Tensor, labels: Tensor, global_valid_tokens: Tensor | None = None, **inputs: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """torchtitan's; one part of the sequence after another where it is cut into chunks."""
        if self.samples is not None:
            with torch.no_grad(), spmd.no_typecheck():
                self._parts.append(self._keep(pred.detach(), labels, self.samples))
                self._place += labels.shape[1]
        found: tuple[Tensor, dict[str, Tensor]] = super().__call__(pred, labels, global_valid_tokens, **inputs)
        return found

    def take(self) -> Kept:
        """What was kept of the micro-step, [B, L] or [B, L, K], and its end."""
        parts, self._parts, self._place, self.samples = self._parts, [], 0, None
        return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}

    def _keep(self, logits: Tensor, labels: Tensor, samples: Tensor) -> Kept:
        shape, device = labels.shape, logits.device
        flat = (
            logits.flatten(0, 1),
            labels.flatten(),
            samples.to(device)[:, None].expand(shape).flatten(),
            (self._place + torch.arange(shape[1], device=device)).expand(shape).flatten(),
        )
        keeper = Keeper(self.online.truncation, self._columns)
        rows = max(1, LOGITS_AT_ONCE // (4 if isinstance(self.online.truncation, Sample) else 1) // logits.shape[-1])
        chunks = [keeper.keep(*each) for each in zip(*(torch.split(part, rows) for part in flat), strict=True)]
        whole = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
        return {name: part.reshape(*shape, *part.shape[1:]) for name, part in whole.items()}


class OnlineWriter:
    """Stores what a `CapturingLoss` keeps, step by step, in step with the training's checkpoints."""

    def __init__(self, loss: CapturingLoss, folder: Path) -> None:
        online = loss.online
        self._loss, self._online, self._folder = loss, online, folder
        self._rank = torch.distributed.get_rank()
        encoding = Encoding(
            codec=online.codec,
            columns=online.columns,
            vocabulary=online.vocabulary,
            length=online.sequence_length,
            width=kept(online.truncation)[1],
        )
        size = online.shard_sequences
        self._writer = SegmentWriter(
            folder, encoding, self._rank, size, lambda sample: (sample - online.first_sample) % size == 0
        )

    def resume(self, step: int) -> None:
        """Drop what lies past the checkpoint of that step: it comes again. A collective."""
        if self._rank == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            drop_after(self._folder, step)
        torch.distributed.barrier()

    def before(self, step: int, samples: Tensor) -> None:
        """A micro-step of these samples [B] begins."""
        self._loss.samples = samples if step >= self._online.from_step else None

    def after(self, step: int) -> None:
        """The micro-step has ended."""
        if self._loss.samples is None:
            return
        samples = self._loss.samples.tolist()
        parts = {name: part.cpu().numpy() for name, part in self._loss.take().items()}
        losses = (-parts[_LOSS].mean(axis=1, dtype="float64")).round(6).tolist()
        self._writer.add(step, samples, losses, lambda: list(blocks_of(parts, self._online.columns)))

    def publish(self) -> None:
        """Make everything so far durable: the checkpoint that follows stands for it."""
        self._writer.publish()
