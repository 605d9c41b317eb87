"""Held-out loss with torchtitan's own validator, under every parallelism it knows."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    def should_validate(self, step: int) -> bool:
        """torchtitan also validates after step 1; a run is measured only where it was asked to be."""
        return bool(self.config.freq) and step % self.config.freq == 0 and step != self.config.last_step
