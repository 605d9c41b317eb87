"""Shapes of models."""

from typing import Annotated, Literal

from pydantic import Field

from pdforge.recipe.parts.base import Model
from pdforge.recipe.units import Count, Flag, Real, Text


class Architecture(Model, defer_build=False):
    """A decoder-only transformer (SwiGLU, RMSNorm, rotary positions, grouped-query attention)."""

    family: Literal["llama3", "qwen3"] = "llama3"
    """`qwen3` normalises queries and keys and may choose its head dimension."""
    hidden: Count
    """Width of the residual stream."""
    ffn: Count
    """Inner width of the feed-forward network."""
    layers: Count
    """Number of transformer blocks."""
    heads: Count
    """Query heads."""
    kv_heads: Count | None = None
    """Key/value heads; by default as many as query heads."""
    head_dim: Count | None = None
    """Width of a head; by default hidden/heads (llama3 allows nothing else)."""
    rope_theta: Annotated[Real, Field(gt=0)] = 500_000.0
    """Base of the rotary position frequencies."""
    tied_embeddings: Flag = False
    """Input and output embeddings are one matrix."""


class HuggingFaceWeights(Model):
    """Start from a local directory in the Hugging Face hub's format, of a llama or qwen3 model without rope scaling."""

    kind: Literal["huggingface"]
    path: Text
    """The directory, with `config.json` and `model.safetensors` or its shards and their index."""


class TorchtitanWeights(Model):
    """Start from a torchtitan checkpoint of the same shape, such as another run's; only its weights are read."""

    kind: Literal["torchtitan"]
    path: Text
    """The checkpoint folder, with `step-N` below it."""
    step: Count
    """Which of its steps."""


Initialise = Annotated[HuggingFaceWeights | TorchtitanWeights, Field(discriminator="kind")]


class Student(Model):
    """The model that is pre-trained."""

    architecture: Architecture
    """Its shape."""
    initialise: Initialise | None = None
    """Weights to start from; by default they are drawn by `training.seed`."""
    extend: Flag = False
    """Go on from a finished run that is shorter and otherwise the same, up to where its schedules agree with these: the
    result is the same, sooner. Where there is none, the training begins at its first step."""
