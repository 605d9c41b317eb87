"""How far a stage is: the typed content of `progress.json`, which the stage's rank 0 writes."""

from __future__ import annotations

import json
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from pdforge.layout import StageDirectory


class Progress(BaseModel):
    """One look at a working stage. What a stage cannot say is None; keys of later versions are ignored."""

    model_config = ConfigDict(frozen=True)

    phase: int = 0
    """Of a stage that counts its steps anew in each phase, in another unit: which one; later ones are greater."""
    step: int = 0
    of: int = 0
    """0: not known yet."""
    unit: str = "steps"
    loss: float | None = None
    """Of the last logged step, in nats a token."""
    tokens_per_second: float | None = None
    """Over all ranks."""
    eta_seconds: float | None = None
    message: str = ""
    time: float = 0.0
    """Unix seconds."""


class Mark(NamedTuple):
    """How far a stage came; what is further compares greater."""

    phase: int
    step: int


def read_progress(stage: StageDirectory) -> Progress | None:
    """The stage's progress; None before it has any, and where the file cannot be read."""
    try:
        return Progress.model_validate(json.loads(stage.progress.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None
