"""`objective`: what is minimised."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pdforge.recipe.parts.base import Model
from pdforge.recipe.parts.schedules import AlphaSchedule, Constant, StepSchedule
from pdforge.recipe.units import Fraction, Real


class NLL(Model):
    """Cross-entropy with the teacher's truncated distribution as the target (Eq. 3)."""

    kind: Literal["nll"]


class KLD(Model):
    """Forward Kullback-Leibler divergence: NLL minus the target's entropy, so the same gradient."""

    kind: Literal["kld"]


class ReverseKLD(Model):
    """Reverse Kullback-Leibler divergence: the student's mass where the teacher has none costs most."""

    kind: Literal["reverse_kld"]


class JSD(Model):
    """Generalised Jensen-Shannon divergence between student and target."""

    kind: Literal["jsd"]
    beta: Annotated[Fraction, Field(gt=0, lt=1)] = 0.5
    """Weight of the target in the mixture that both are compared with; 0.5 is symmetric."""


class MSE(Model):
    """Mean squared error (Table 5; its operands are our reading)."""

    kind: Literal["mse"]
    on: Literal["probabilities", "logits"] = "probabilities"
    """`probabilities` over the whole vocabulary, 0 outside the kept tokens; or `logits` of the kept tokens."""


Loss = Annotated[NLL | KLD | ReverseKLD | JSD | MSE, Field(discriminator="kind")]


class NormKD(Model):
    """τ is the spread of each position's logits times `norm`, teacher and student each their own (Table 3)."""

    kind: Literal["normkd"]
    norm: Annotated[Real, Field(gt=0, le=100)] = 1.0
    """τ of logits with a standard deviation of 1."""


class WTTM(Model):
    """The teacher's probabilities to a power, each position weighed by their sum (Table 3)."""

    kind: Literal["wttm"]
    gamma: Annotated[Real, Field(gt=0, le=1)] = 0.1
    """The power; 1 leaves the distribution as it is."""


class AdaKDSpread(Model):
    """τ between two bounds by the standard deviation of the teacher's logits (Table 3, AdaKD_SD; our reading)."""

    kind: Literal["adakd_sd"]
    minimum: Annotated[Real, Field(gt=0, le=100)] = 0.5
    """τ where the teacher is flattest."""
    maximum: Annotated[Real, Field(gt=0, le=100)] = 2.0
    """τ where it is most peaked."""
    reference: Annotated[Real, Field(gt=0, le=100)] = 4.0
    """Standard deviation from which on τ is the maximum."""


class AdaKDEntropy(Model):
    """τ between two bounds by the entropy of the teacher's distribution (Table 3, AdaKD_H; our reading)."""

    kind: Literal["adakd_h"]
    minimum: Annotated[Real, Field(gt=0, le=100)] = 0.5
    """τ where the entropy is 0."""
    maximum: Annotated[Real, Field(gt=0, le=100)] = 2.0
    """τ where it is that of a uniform choice among the kept tokens."""


class ScheduledTemperature(Model):
    """One τ for all positions that follows a schedule: low + (high - low) times the schedule's value."""

    kind: Literal["scheduled"]
    low: Annotated[Real, Field(gt=0, le=100)] = 1.0
    """τ where the schedule is 0."""
    high: Annotated[Real, Field(gt=0, le=100)]
    """τ where the schedule is 1."""
    along: StepSchedule
    """The schedule; one of those of α, with its `peak` usually 1."""


AdaptiveTemperature = Annotated[
    NormKD | WTTM | AdaKDSpread | AdaKDEntropy | ScheduledTemperature, Field(discriminator="kind")
]
"""A temperature of each position's own, or of each step's."""


def _form(value: Any) -> str:
    return "adaptive" if isinstance(value, dict | Model) else "number"


Temperature = Annotated[
    Annotated[Real, Field(gt=0, le=100), Tag("number")] | Annotated[AdaptiveTemperature, Tag("adaptive")],
    Discriminator(_form),
]
"""One τ for all positions, or one of each position's own."""


class TokenFilter(Model):
    """Which positions carry the distillation loss (arXiv 2509.01649)."""

    skip_lowest_entropy: Annotated[Fraction, Field(gt=0, lt=1)]
    """Part of the positions that is left out: those where the teacher's entropy is lowest."""


class Objective(Model, defer_build=False):
    """L = (1-α)·L_lm + α·L_kd (Eq. 1)."""

    loss: Loss = KLD.model_construct(kind="kld")
    """L_kd."""
    tail: Literal["renormalise", "ghost", "label"] = "renormalise"
    """What becomes of the mass that truncation cut off: spread over the kept tokens (the paper), compared as one bucket
    (`ghost`), or given to the true next token (`label`)."""
    temperature: Temperature = 1.0
    """τ: softens the teacher's distribution only; a number, or a mapping with the `kind` of an adaptive one."""
    alpha: AlphaSchedule = Constant.model_construct(value=0.9)
    """Weight of the distillation loss; a plain number is constant."""
    token_filter: TokenFilter | None = None
    """Positions that carry no distillation loss; by default all carry it."""
