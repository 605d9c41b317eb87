"""Stops training before the optimizer step where the loss or the gradient is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchtitan.distributed import utils as titan_distributed

from pdforge.errors import StageFailed
from pdforge.store.order import SampleOrder

_NAMED = 16
"""Runs of consecutive samples that a message names."""


class FiniteStep:
    """Watches the losses of a step's micro-steps and the gradient norm; then all ranks agree whether to go on.

    One small reduction a step, once the gradients are complete and before any weight has changed.
    """

    def __init__(
        self,
        micro_steps: int,
        positions: Callable[[int], range],
        batch: int,
        order: SampleOrder,
        device: torch.device,
    ) -> None:
        """Watch steps of so many micro-steps.

        Args:
            micro_steps: forward and backward passes of a step on this rank.
            positions: what this rank reads in a micro-step of the step at hand.
            batch: samples of a step, of all ranks.
            order: the samples at all positions.
            device: of the losses.
        """
        self._bad = torch.zeros(micro_steps, device=device)
        self._positions, self._batch, self._order = positions, batch, order
        self._seen = 0

    def add(self, loss: Tensor) -> None:
        """The loss of the next micro-step."""
        self._bad[self._seen] = ~torch.isfinite(loss.detach()).all()
        self._seen += 1

    def agree(self, norm: Tensor, step: int) -> None:
        """Go on to the optimizer step, or not; a collective.

        Args:
            norm: of the gradient of all micro-steps, before it is clipped; 0-dim.
            step: the step at hand.

        Raises:
            StageFailed: a loss or the gradient norm of this step is not finite on some rank.
        """
        self._seen = 0
        bad = torch.stack([self._bad.max(), (~torch.isfinite(norm.detach())).float()])
        torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
        loss, gradient = bad.tolist()
        if loss:
            self._fail(f"the loss of step {step} is not finite ({self._places()})")
        if gradient:
            samples = self._named(range((step - 1) * self._batch, step * self._batch))
            self._fail(
                f"the gradient norm of step {step} is {norm.item()}, and its losses are finite (samples {samples})"
            )

    def _places(self) -> str:
        """Ranks and samples whose losses are not finite; a collective."""
        mine = [self._named(self._positions(number)) for number, bad in enumerate(self._bad.tolist()) if bad]
        found: list[list[str]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(found, mine)
        return "; ".join(f"rank {rank}, samples {', '.join(parts)}" for rank, parts in enumerate(found) if parts)

    def _named(self, positions: range) -> str:
        return listed([self._order[position] for position in positions])

    def _fail(self, what: str) -> None:
        raise StageFailed(
            f"{what}; no weight was changed by this step",
            remedy="the last checkpoint was kept: look at these samples, or lower the learning rate or raise the "
            "precision, and run it again",
        )


def listed(samples: Sequence[int]) -> str:
    """Samples for a message, consecutive ones as `8-15`; a long list is cut short."""
    runs: list[list[int]] = []
    for sample in sorted(set(samples)):
        if runs and sample == runs[-1][1] + 1:
            runs[-1][1] = sample
        else:
            runs.append([sample, sample])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:_NAMED]]
    return ", ".join(parts) + (f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else "")


@contextmanager
def gradient_norms(seen: Callable[[Tensor], None]) -> Iterator[None]:
    """Show `seen` the norm that torchtitan's train_step clips by, between its last backward pass and the optimizer.

    torchtitan keeps it in a local variable, so its function is wrapped for the time.
    """
    clip = titan_distributed.clip_grad_norm_

    def wrapped(*arguments: Any, **options: Any) -> Tensor:
        norm: Tensor = clip(*arguments, **options)
        seen(norm)
        return norm

    titan_distributed.clip_grad_norm_ = wrapped
    try:
        yield
    finally:
        titan_distributed.clip_grad_norm_ = clip
