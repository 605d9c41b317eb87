"""Held-out loss with torchtitan's own validator, under every parallelism it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.validate import Validator

from pdforge.titan.loader import StoreLoader


class HeldOutLoss(Validator):
    """Measures every `freq` steps where that is not 0; after the last step the trainer asks for it."""

    @dataclass(kw_only=True, slots=True)
    class Config(Validator.Config):
        """torchtitan's configuration with the held-out split as the data."""

        enable: bool = True
        freq: int = 0
        """Steps between measurements during training; 0: only at the end."""
        last_step: int = 0
        """After which the trainer measures by itself."""
        dataloader: BaseDataLoader.Config = field(default_factory=lambda: StoreLoader.Config(split="validation"))

    def __init__(self, config: Config, **arguments: Any) -> None:
        super().__init__(config, **arguments)
        if self.parallel_dims.pp_enabled:
            # a pipeline takes a whole micro batch at once; torchtitan would leave out the sequences of a last part
            batches = self.local_batch_size // self.parallelism.pipeline_parallel_microbatch_size
            assert isinstance(config.dataloader, StoreLoader.Config)
            self.dl_config: StoreLoader.Config = replace(config.dataloader, multiple=batches)
        self.afterwards: Callable[[], None] = lambda: None
        """Set by the trainer: called after each measurement."""

    def validate(self, model_parts: list[nn.Module], step: int) -> None:
        """torchtitan's; a collective."""
        super().validate(model_parts, step)
        self.afterwards()

    def should_validate(self, step: int) -> bool:
        """torchtitan also validates after step 1; a run is measured only where it was asked to be."""
        return bool(self.config.freq) and step % self.config.freq == 0 and step != self.config.last_step
