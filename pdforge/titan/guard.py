"""Stops training before the optimizer step where the loss is not finite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pdforge.errors import StageFailed


class FiniteLoss:
    """Watches the losses of a step's micro-steps; after the last one all ranks agree whether to go on.

    One small reduction a step: gradients are complete then, and no weight has changed.
    """

    def __init__(self, micro_steps: int, samples: Callable[[int], range], device: torch.device) -> None:
        """Watch steps of so many micro-steps.

        Args:
            micro_steps: forward and backward passes of a step on this rank.
            samples: this rank's samples of a micro-step of the step at hand.
            device: of the losses.
        """
        self._bad = torch.zeros(micro_steps, device=device)
        self._samples = samples
        self._seen = 0

    def add(self, loss: Tensor, step: int) -> None:
        """The loss of the next micro-step; a collective with the step's last.

        Raises:
            StageFailed: a loss of this step is not finite on some rank.
        """
        self._bad[self._seen] = ~torch.isfinite(loss.detach()).all()
        self._seen += 1
        if self._seen < len(self._bad):
            return
        self._seen = 0
        worst = self._bad.max()
        torch.distributed.all_reduce(worst, op=torch.distributed.ReduceOp.MAX)
        if worst.item():
            self._fail(step)

    def _fail(self, step: int) -> None:
        mine = [self._samples(number) for number, bad in enumerate(self._bad.tolist()) if bad]
        found: list[list[range]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(found, mine)
        places = [
            f"rank {rank}, samples {', '.join(f'{part[0]}-{part[-1]}' for part in parts)}"
            for rank, parts in enumerate(found)
            if parts
        ]
        raise StageFailed(
            f"the loss of step {step} is not finite ({'; '.join(places)}); no weight was changed by this step",
            remedy="the last checkpoint was kept: look at these samples, or lower the learning rate or raise the "
            "precision, and run it again",
        )
