"""Bytes that the tensors of a real training step take at most, for `benchmarks/plan.py`.

    python benchmarks/_real_memory.py STAGE_DIRECTORY

Builds the training of a compiled stage on this machine's CPU, with a mock batch in the place of its stores. A process
of its own, since torchtitan can be built once in one.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdforge.layout import StageDirectory
from pdforge.stages.train import load_config
from pdforge.titan.mock import MockLoader


def real_peak(stage: StageDirectory) -> int:
    """Bytes that tensors take at most in a step after the first, by the allocator's own events."""
    os.environ |= {"NGPU": "1", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    config = load_config(stage.train_module)
    with tempfile.TemporaryDirectory() as folder:
        trainer = dataclasses.replace(
            config,
            dump_folder=folder,
            teacher=None,
            dataloader=MockLoader.Config(like=config.dataloader),
            validator=dataclasses.replace(config.validator, enable=False),
            checkpoint=dataclasses.replace(config.checkpoint, enable=False, initial_load_path=None),
            comm=dataclasses.replace(config.comm, mode="fake_backend"),
        ).build()
        _step(trainer)
        trainer.optimizers.zero_grad()
        before = _bytes(_lasting(trainer))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            _step(trainer)
    events = sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return before + int(np.cumsum([event.nbytes() for event in events if event.name() == "[memory]"]).max())


def _step(trainer: Any) -> None:
    """One optimizer step, of two micro-steps where there are several."""
    from torchtitan.distributed.utils import clip_grad_norm_  # noqa: PLC0415 - once pdforge.titan has prepared it
    from torchtitan.trainer import Trainer  # noqa: PLC0415 - as above

    batches = iter(trainer.dataloader)
    for _ in range(min(2, trainer.gradient_accumulation_steps)):
        inputs, labels = next(batches)
        Trainer.forward_backward_step(trainer, input_dict=inputs, labels=labels, global_valid_tokens=torch.tensor(1))
    parameters = [parameter for part in trainer.model_parts for parameter in part.parameters()]
    clip_grad_norm_(parameters, trainer.config.training.max_norm, foreach=True, pp_mesh=None, ep_enabled=False)
    trainer.optimizers.step()


def _lasting(trainer: Any) -> Iterator[torch.Tensor]:
    """What is there between steps."""
    for part in trainer.model_parts:
        yield from part.parameters()
        yield from part.buffers()
    for optimizer in trainer.optimizers.optimizers:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    local = (getattr(tensor, "_local_tensor", tensor) for tensor in tensors)
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in local)}
    return sum(storages.values())


if __name__ == "__main__":
    print(real_peak(StageDirectory(Path(sys.argv[1]))))
