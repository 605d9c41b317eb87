"""Schedules of α and of the learning rate, over the steps of one training stage."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pdforge.recipe.parts.base import Model
from pdforge.recipe.units import Count, Fraction, Real


class Constant(Model):
    """The same value at every step."""

    schedule: Literal["constant"] = "constant"
    value: Fraction
    """The value."""


class LinearIncrease(Model):
    """From 0 to the peak: language modelling first (Table 5, Linear Inc)."""

    schedule: Literal["linear_inc"]
    peak: Fraction = 1.0
    """The last step's value."""


class LinearDecrease(Model):
    """From the peak to 0: distillation first (Table 5, Linear Dec)."""

    schedule: Literal["linear_dec"]
    peak: Fraction = 1.0
    """The first step's value."""


class Period(Model):
    """A square wave between the peak and 0 (Table 5, Period; the wave form is our reading)."""

    schedule: Literal["period"]
    peak: Fraction = 1.0
    """Value of the high part."""
    cycles: Count = 10
    """Waves over the whole training."""
    duty: Fraction = 0.5
    """High part of each wave, which comes first."""


class WarmupStableDecay(Model):
    """Linear warm-up from 0, a plateau, cosine decay to 0 (WSD; Table 5)."""

    schedule: Literal["wsd"]
    peak: Fraction = 0.9
    """The plateau."""
    warmup: Fraction = 0.10
    """Part of all steps that warms up."""
    decay: Fraction = 0.01
    """Part of all steps that decays."""


class WarmupStableDecayOfRest(Model):
    """WSD on 1-α (Table 5, WSD-β): α falls from 1, stays at 1-peak, and rises to 1 again."""

    schedule: Literal["wsd_beta"]
    peak: Fraction = 0.9
    """The plateau of 1-α."""
    warmup: Fraction = 0.10
    """Part of all steps that warms up."""
    decay: Fraction = 0.01
    """Part of all steps that decays."""


class Cosine(Model):
    """Half a cosine from the peak to 0."""

    schedule: Literal["cosine"]
    peak: Fraction = 0.9
    """The first step's value."""


class TeacherConvergence(Model):
    """α that a teacher earns while it is pre-trained (`teacher.logits.mode: online`): near 0 where it had much to learn
    at the step that a distribution is from, and the peak where its loss was that of its last steps."""

    schedule: Literal["teacher_convergence"]
    peak: Fraction = 0.9
    """Its value for a teacher that has converged."""
    half_at: Annotated[Real, Field(gt=0, le=100)] = 0.1
    """Nats a token above the teacher's last loss at which α is half the peak; twice as many, and it is a quarter."""


def _constant(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    plain = number or (isinstance(value, str) and value[:1].isdigit())
    return {"schedule": "constant", "value": value} if plain else value


_OfSteps = Constant | LinearIncrease | LinearDecrease | Period | WarmupStableDecay | WarmupStableDecayOfRest | Cosine

StepSchedule = Annotated[_OfSteps, Field(discriminator="schedule"), BeforeValidator(_constant)]
"""A value over the steps that depends on nothing else; a plain number is constant."""

AlphaSchedule = Annotated[_OfSteps | TeacherConvergence, Field(discriminator="schedule"), BeforeValidator(_constant)]
"""α over the steps; a plain number is constant."""


class LearningRateWSD(Model):
    """Linear warm-up, a plateau at the optimizer's learning rate, cosine decay to the floor."""

    schedule: Literal["wsd"]
    warmup: Fraction = 0.10
    """Part of all steps that warms up."""
    decay: Fraction = 0.01
    """Part of all steps that decays."""
    floor: Fraction = 0.1
    """What is left at the end, as a part of the peak."""


class LearningRateCosine(Model):
    """Linear warm-up, then half a cosine to the floor."""

    schedule: Literal["cosine"]
    warmup: Fraction = 0.01
    """Part of all steps that warms up."""
    floor: Fraction = 0.1
    """What is left at the end, as a part of the peak."""


class LearningRateConstant(Model):
    """Linear warm-up, then the optimizer's learning rate."""

    schedule: Literal["constant"]
    warmup: Fraction = 0.01
    """Part of all steps that warms up."""


LearningRateSchedule = Annotated[
    LearningRateWSD | LearningRateCosine | LearningRateConstant, Field(discriminator="schedule")
]
