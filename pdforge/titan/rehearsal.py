"""A mock batch through the real model before the first step: what does not fit fails in the first minute, with advice.

On CUDA it is the first thing that a training does once its weights are there. Nothing of it stays: no gradient, no
random number, no sample read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torchtitan.tools.logging import logger
from torchtitan.trainer import Trainer

from pdforge.errors import EnvironmentFault
from pdforge.titan.mock import mock_batch

if TYPE_CHECKING:
    from pdforge.titan.trainer import DistillTrainer

VARIABLE = "PDFORGE_MOCK_BATCH"
"""1 or 0: whether there is a rehearsal, also on a CPU; by default on CUDA only."""


def wanted(device: torch.device) -> bool:
    """Whether a training on this device rehearses."""
    return os.environ.get(VARIABLE, "1" if device.type == "cuda" else "0") == "1"


def rehearse(trainer: DistillTrainer) -> None:
    """One micro-step of the real micro batch, and where gradients are accumulated the next one on top of them, beside
    room for the optimizer state that the first step makes. A collective.

    Raises:
        EnvironmentFault: the device has not so much memory; the launcher does not start such a stage again.
    """
    with _untouched(trainer):
        try:
            room = _optimizer_state(trainer)
            for _ in range(min(2, trainer.gradient_accumulation_steps)):
                _forward_backward(trainer)
            del room
        except torch.OutOfMemoryError as error:
            training = trainer.config.training
            raise EnvironmentFault(
                f"a micro batch of {training.local_batch_size} sequences of {training.seq_len} tokens does not fit "
                f"into the memory of {_name(trainer.device)}, before the first step: {_first_line(error)}",
                remedy="take a smaller batch.micro, more loss_chunks or activation_checkpointing: full; "
                "`pdforge tune` says which of them fit and are quickest",
            ) from error
    logger.info("mock batch: forward and backward of the real micro batch fit")


@contextmanager
def _untouched(trainer: DistillTrainer) -> Iterator[None]:
    """Leave the trainer as it was."""
    seen, on_cuda = trainer.ntokens_seen, trainer.device.type == "cuda"
    with torch.random.fork_rng(devices=[trainer.device] if on_cuda else []):
        yield
    trainer.ntokens_seen = seen
    # also where a step would keep the tensors: there are none yet before the first
    trainer.optimizers.zero_grad(set_to_none=True)
    if trainer.objective is not None:
        trainer.objective.sums.zero_()
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(trainer.device)


def _optimizer_state(trainer: DistillTrainer) -> list[Tensor]:
    """Two float32 moments a parameter, as AdamW makes them in its first step; none where a checkpoint had them."""
    if any(optimizer.state for optimizer in trainer.optimizers.optimizers):
        return []
    parameters = [parameter for part in trainer.model_parts for parameter in part.parameters()]
    local = [each.to_local() if isinstance(each, DTensor) else each for each in parameters]
    return [torch.empty(2 * each.numel(), dtype=torch.float32, device=trainer.device) for each in local]


def _forward_backward(trainer: DistillTrainer) -> None:
    """torchtitan's own micro-step, without what pdforge's adds to watch losses and to capture."""
    config, device = trainer.config, trainer.device
    spread = config.parallelism
    pipelined = trainer.parallel_dims.pp_enabled
    sequences = spread.pipeline_parallel_microbatch_size if pipelined else config.training.local_batch_size
    batch, labels = mock_batch(config.dataloader, sequences=sequences, length=config.training.seq_len)
    batches = [
        ({name: value.to(device) for name, value in batch.items()}, labels.to(device))
        for _ in range(trainer.num_pipeline_parallel_microbatches)
    ]
    tokens = torch.tensor(config.training.global_batch_size * config.training.seq_len, device=device)
    if pipelined:
        inputs, targets = map(list, zip(*batches, strict=True))
        Trainer.forward_backward_step(trainer, input_dict=inputs, labels=targets, global_valid_tokens=tokens)
    else:
        [(one, target)] = batches
        Trainer.forward_backward_step(trainer, input_dict=one, labels=target, global_valid_tokens=tokens)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
