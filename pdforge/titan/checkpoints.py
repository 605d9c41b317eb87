"""Checkpoints of a stage: by steps as torchtitan saves them, and by time; and what a checkpoint was trained with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from pydantic import BaseModel
from torchtitan.components.checkpointer.dcp import CheckpointManager
from torchtitan.trainer import Trainer

from pdforge.errors import UsageError


class StageCheckpoints(CheckpointManager):
    """torchtitan's checkpoints, of which one is also saved where the trainer says that it is due."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        """torchtitan's configuration and the longest time between checkpoints."""

        seconds: float = 0.0
        """Longest time between checkpoints; 0: any."""

        def __post_init__(self) -> None:
            # super() does not find the base class of a dataclass with slots
            CheckpointManager.Config.__post_init__(self)

    due = False
    """Set by the trainer, equally on every rank: the next save is made whatever the step."""

    def _should_save(self, curr_step: int, last_step: bool = False) -> bool:
        return self.due or super()._should_save(curr_step, last_step)


def science(config: Trainer.Config) -> str:
    """What changes the numbers of a training and must not differ where one is resumed: JSON, one entry a value.

    Not in it: how often it saves, measures and logs, how it is spread over processes, paths, and `training.steps`,
    which by itself only says when to stop.
    """
    training = config.training
    parts = {
        "model": config.model_spec and config.model_spec.model,
        "loss": config.loss,
        "optimizer": config.optimizer,
        "lr_scheduler": config.lr_scheduler,
        "seed": config.debug.seed,
        "training": {
            name: getattr(training, name)
            for name in ("seq_len", "global_batch_size", "max_norm", "mixed_precision_param")
        },
        "dataloader": {name: getattr(config.dataloader, name, None) for name in ("split", "top_p", "top_k")},
    }
    return json.dumps(dict(sorted(_leaves("", parts))))


def require_same_science(stored: str, now: str, step: int) -> None:
    """Refuse to go on from a checkpoint of another training.

    Args:
        stored: `science` of the checkpoint.
        now: of this training.
        step: of the checkpoint.

    Raises:
        UsageError: they differ; it names every difference.
    """
    old, new = json.loads(stored), json.loads(now)
    differing = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if differing:
        listed = "; ".join(f"{name}: {old.get(name)} there, {new.get(name)} here" for name in differing)
        raise UsageError(
            f"the checkpoint of step {step} is of another training than this one ({listed})",
            remedy="undo the change, or train in another directory",
        )


_UNREAD = {"num_chunks"}
"""Ways to the same numbers."""


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Plain values below `value` with their dotted names; functions and the like are left out."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value) if field.name not in _UNREAD}
    if isinstance(value, dict):
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(number), inner) for number, inner in enumerate(value)]
    elif value is None or isinstance(value, bool | int | float | str):
        yield name, value
        return
    else:
        return
    for key, inner in items:
        yield from _leaves(f"{name}.{key}" if name else key, inner)
