"""`objective`: what is minimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pdforge.recipe.parts.base import Model
from pdforge.recipe.parts.schedules import AlphaSchedule, Constant
from pdforge.recipe.units import Real


class NLL(Model):
    """Cross-entropy with the teacher's truncated distribution as the target (Eq. 3)."""

    kind: Literal["nll"]


class KLD(Model):
    """Forward Kullback-Leibler divergence: NLL minus the target's entropy, so the same gradient."""

    kind: Literal["kld"]


Loss = Annotated[NLL | KLD, Field(discriminator="kind")]


class Objective(Model):
    """L = (1-α)·L_lm + α·L_kd (Eq. 1)."""

    loss: Loss = KLD(kind="kld")
    """L_kd."""
    tail: Literal["renormalise"] = "renormalise"
    """What becomes of the mass that truncation cut off."""
    temperature: Annotated[Real, Field(gt=0, le=100)] = 1.0
    """τ: softens the teacher's distribution only."""
    alpha: AlphaSchedule = Constant(value=0.9)
    """Weight of the distillation loss; a plain number is constant."""
