"""One training stage from configuration to held-out loss: what torchtitan's own `train.main` does, with an outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torchtitan.tools.logging import init_logger

from pdforge import heartbeat
from pdforge.titan.trainer import DistillTrainer


@dataclass(frozen=True)
class Outcome:
    """How a training stage ended.

    Attributes:
        stopped: on request, before the last step, with everything saved.
        heldout_loss: nats a token after the last step; None when stopped.
        parameters: of the whole model.
        peak_memory: bytes of this rank's device that tensors took at most; 0 where it is not counted.
    """

    stopped: bool
    heldout_loss: float | None
    parameters: int
    peak_memory: int = 0


def train(config: DistillTrainer.Config, *, stop_requested: Callable[[], bool]) -> Outcome:
    """Train, resuming at the newest whole checkpoint. One call a process: torchtitan's Trainer is made for that.

    Args:
        config: what a compiled module's `config()` returns.
        stop_requested: polled at every step; where it is true on any rank, all save and stop together.

    Raises:
        EnvironmentFault: the data ended before the last step.
    """
    init_logger()
    trainer = config.build()
    heartbeat.finish("build")
    trainer.stop_requested = stop_requested
    try:
        trainer.train()
    finally:
        trainer.close()
    outcome = Outcome(
        stopped=trainer.stopped,
        heldout_loss=trainer.metrics_processor.heldout_loss,
        parameters=sum(parameter.numel() for part in trainer.model_parts for parameter in part.parameters()),
        peak_memory=trainer.metrics_processor.peak_memory,
    )
    # every rank has what it needs: only now may the first one leave
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return outcome
