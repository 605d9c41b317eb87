"""Checkpoints of a stage: by steps as torchtitan saves them, and by time; what one was trained with; where a training
starts from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torchtitan.components.checkpointer.dcp import CheckpointManager
from torchtitan.trainer import Trainer

from pdforge.errors import EnvironmentFault, UsageError
from pdforge.layout import checkpoint_steps


class StageCheckpoints(CheckpointManager):
    """torchtitan's checkpoints, of which one is also saved where the trainer says that it is due, and some are kept."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        """torchtitan's configuration, and which checkpoints there are besides."""

        seconds: float = 0.0
        """Longest time between checkpoints; 0: any."""
        hold: tuple[int, ...] = ()
        """Steps that are saved, and not removed for newer ones."""

        def __post_init__(self) -> None:
            # super() does not find the base class of a dataclass with slots
            CheckpointManager.Config.__post_init__(self)

    before_save: Callable[[], None] = staticmethod(lambda: None)
    """Set by the trainer: called before each checkpoint is written."""
    due = False
    """Set by the trainer, equally on every rank: the next save is made whatever the step."""
    extending = False
    """Whether what was loaded is the state of a shorter training, which this one goes on from."""

    def __init__(self, config: Config, **arguments: Any) -> None:
        super().__init__(config, **arguments)
        self._hold = config.hold
        self._saving = -1

    def scheduled(self, step: int) -> bool:
        """Whether a checkpoint of this step is saved whatever the time."""
        return self._should_save(step)

    def _should_save(self, curr_step: int, last_step: bool = False) -> bool:
        return self.due or curr_step in self._hold or super()._should_save(curr_step, last_step)

    def _purge_stale_checkpoints(self) -> None:
        """torchtitan's, but for the steps that are held and the one just saved. What killed saves left counts for
        nothing, and goes with the whole ones that it is older than.
        """
        if not self._should_purge():
            return
        folder = Path(self.folder)
        kept = checkpoint_steps(folder, whole=True)[-self.keep_latest_k :]
        for step in checkpoint_steps(folder, whole=False):
            if kept and step < kept[0] and step not in (*self._hold, self._saving):
                self.purge_queue.put(self._create_checkpoint_id(step))

    def _find_load_step(self, folder: str = "") -> int:
        """torchtitan's, which takes a copy (`step-500.bak`) for the checkpoint itself."""
        return max(checkpoint_steps(Path(folder or self.folder), whole=True), default=-1)

    def save(self, curr_step: int, last_step: bool = False) -> bool:
        """torchtitan's."""
        if self._should_save(curr_step, last_step):
            self._saving = curr_step
            self.before_save()
        return bool(super().save(curr_step, last_step))

    def dcp_load(self, state_dict: dict[str, Any], checkpoint_id: str, from_hf: bool, from_quantized: bool) -> None:
        """torchtitan's; what a training starts from is looked at before.

        Raises:
            EnvironmentFault: the weights to start from are of another shape, not whole, or unreadable.
        """
        if checkpoint_id != self.initial_load_path:
            return super().dcp_load(state_dict, checkpoint_id, from_hf, from_quantized)
        self.extending = not self.initial_load_model_only
        if not self.extending:
            adapter = self.sd_adapter if from_hf else None
            require_weights(Path(checkpoint_id), state_dict, adapter, place="student.initialise", of="student")
        try:
            return super().dcp_load(state_dict, checkpoint_id, from_hf, from_quantized)
        except (CheckpointException, SafetensorError, OSError) as error:
            raise unreadable(Path(checkpoint_id), error) from error


_SCHEDULES = re.compile(r"lr_scheduler\.|.*objective\.alpha\.|.*objective\.temperature\.along\.")
"""What the values of `science` that lay out schedules are called."""


def require_weights(folder: Path, weights: Mapping[str, Tensor], adapter: Any, *, place: str, of: str) -> None:
    """Refuse weights that are not those of a model.

    Args:
        folder: a checkpoint (`…/step-N`), or a directory in Hugging Face's format.
        weights: the model's, or those of its part on this rank, by torchtitan's names; only their shapes are read.
        adapter: torchtitan's state-dict adapter where they have Hugging Face's names; None: they have torchtitan's.
        place: the recipe's field that names the folder, for messages.
        of: the recipe's field that has the model's `architecture`.

    Raises:
        EnvironmentFault: a weight is missing or has another shape, or a file cannot be read; named.
    """
    expected: dict[str, Tensor] = {name: torch.empty(weight.shape, device="meta") for name, weight in weights.items()}
    if adapter is not None:
        expected = adapter.to_hf(expected)
    try:
        reader = HuggingFaceStorageReader(str(folder)) if adapter is not None else FileSystemReader(folder)
        there = reader.read_metadata().state_dict_metadata
    # a damaged pickle or header raises whatever it likes
    except Exception as error:
        raise unreadable(folder, error) from error
    for name, weight in expected.items():
        stored = getattr(there.get(name), "size", None)
        if stored != weight.shape:
            shape = "does not have it" if stored is None else f"has the shape {list(stored)}"
            raise EnvironmentFault(
                f"{place}: the weight {name} of {of}.architecture has the shape {list(weight.shape)}; {folder} {shape}",
                remedy=f"make {of}.architecture and the vocabulary those of the weights",
            )


def unreadable(folder: Path, error: BaseException) -> EnvironmentFault:
    """What is said of weights that cannot be read: without the traceback that torch puts into its own words."""
    causes = list(getattr(error, "failures", {}).values())
    cause = causes[0][0] if causes else error
    return EnvironmentFault(
        f"cannot read the weights in {folder}: {type(cause).__name__}: {cause}",
        remedy="a file is damaged or not wholly there: fetch or write it again",
    )


_LATER = ("content", "first", "teacher")
"""Parts of `science` that a checkpoint of an earlier version does not say."""


def science(config: Trainer.Config, content: str) -> str:
    """What changes the numbers of a training and must not differ where one is resumed: JSON, one entry a value.

    `content` is a hash of the tokens that it reads, which a store that was built again may have others of.

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
        "dataloader": {name: getattr(config.dataloader, name, None) for name in ("split", "top_p", "top_k", "mix")},
        "also": [each[1:] for each in getattr(config.dataloader, "also", ())],
        "content": content,
        "first": getattr(config.dataloader, "first", None),
        "teacher": _teacher(getattr(config, "teacher", None)),
    }
    return json.dumps(dict(sorted(_leaves("", parts))))


def _teacher(live: Any) -> dict[str, Any] | None:
    """Of a `LiveTeacher.Config`, or none; where its weights are and what follows from the objective is not in it."""
    if live is None:
        return None
    source = {name: getattr(live.source, name, None) for name in ("step", "revision", "dtype", "gguf_file")}
    return {"source": source, "truncation": live.truncation, "precision": live.precision}


def require_same_science(stored: str, now: str, step: int, *, schedules: bool = True) -> None:
    """Refuse to go on from a checkpoint of another training.

    Args:
        stored: `science` of the checkpoint.
        now: of this training.
        step: of the checkpoint.
        schedules: whether these must be the same; not, where the plan has compared their values up to this step.

    Raises:
        UsageError: they differ; it names every difference.
    """
    old, new = json.loads(stored), json.loads(now)
    unknown = set(_LATER) - {_part(name) for name in old}
    differing = [
        name
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and _part(name) not in unknown and (schedules or not _SCHEDULES.match(name))
    ]
    if differing:
        listed = "; ".join(f"{name}: {old.get(name)} there, {new.get(name)} here" for name in differing)
        raise UsageError(
            f"the checkpoint of step {step} is of another training than this one ({listed})",
            remedy="undo the change, or train in another directory",
        )


def _part(name: str) -> str:
    return name.partition(".")[0]


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
