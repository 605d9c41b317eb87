"""The per-position columns of a logit store that an objective needs beside the distributions themselves."""

from __future__ import annotations

from pdforge.recipe.parts.objective import AdaKDSpread, NormKD, Objective
from pdforge.recipe.parts.teacher import Column

SPREAD: Column = "standard_deviation"
"""Standard deviation of the teacher's logits over its vocabulary."""
ENTROPY: Column = "entropy"
"""Entropy of the teacher's full softmax at τ=1, in nats."""

QUANTILE_SEQUENCES = 256
"""Sequences whose entropies say which are low (`objective.token_filter`): the first ones."""


def required_columns(objective: Objective) -> frozenset[Column]:
    """Names of the columns that must have been captured."""
    spread = isinstance(objective.temperature, NormKD | AdaKDSpread)
    return frozenset(([SPREAD] if spread else []) + ([ENTROPY] if objective.token_filter is not None else []))
