"""`teacher`: whose next-token distributions are learnt, and what of them is kept."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pdforge.recipe.parts.architecture import Architecture
from pdforge.recipe.parts.base import Model, by_default
from pdforge.recipe.parts.training import Training
from pdforge.recipe.units import Count, Fraction, Text


class PretrainedHere(Model):
    """A teacher that this run pre-trains first, on the same token store."""

    kind: Literal["pretrain"]
    architecture: Architecture
    """Its shape."""
    training: Training
    """How it is trained."""


class TorchtitanTeacher(Model):
    """A teacher from a torchtitan checkpoint."""

    kind: Literal["torchtitan"]
    path: Text
    """The checkpoint folder, with `step-N` below it."""
    step: Count
    """Which of its steps."""
    architecture: Architecture
    """Its shape."""


class HuggingFaceTeacher(Model):
    """A causal language model of the Hugging Face hub, or a local directory in its format."""

    kind: Literal["huggingface"]
    path: Text
    """A hub id such as `zai-org/glm-4-9b`, or a local directory."""
    revision: Text | None = None
    """Git revision, where the path is a hub id; without one the weights may change under a finished run."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of weights and forward pass."""
    architecture: Architecture | None = None
    """Its shape, for sizes and estimates only: the model's own configuration is what runs."""


TeacherModel = Annotated[PretrainedHere | TorchtitanTeacher | HuggingFaceTeacher, Field(discriminator="kind")]


class TopPTopK(Model):
    """Keep the smallest set of tokens with a mass of at least `top_p` at τ=1, then the `top_k` likeliest (Eq. 4)."""

    kind: Literal["topp_topk"] = "topp_topk"
    top_p: Annotated[Fraction, Field(gt=0)] = 0.95
    """Probability mass to keep."""
    top_k: Annotated[Count, Field(le=255)] = 100
    """Tokens to keep at most."""


class Sample(Model):
    """Keep token ids drawn from the teacher's full distribution, with how often each was drawn (arXiv 2503.16870).

    An unbiased estimate of the whole distribution: nothing is cut off.
    """

    kind: Literal["sample"]
    draws: Annotated[Count, Field(le=255)] = 50
    """Draws of a position, seeded by its place in the token store."""


Truncation = Annotated[TopPTopK | Sample, Field(discriminator="kind"), BeforeValidator(by_default("kind", "topp_topk"))]
"""What of a distribution is kept."""


class OfflineLogits(Model):
    """The teacher's distributions are stored before the student starts."""

    mode: Literal["offline"] = "offline"
    shard_sequences: Count = 512
    """Sequences of one shard of the store."""


class OnlineLogits(Model):
    """The teacher's distributions are stored while it is pre-trained, each from the weights of its own step."""

    mode: Literal["online"]
    from_step: Count
    """First step of the teacher's training whose distributions are stored; those before it never are."""
    shard_sequences: Count = 512
    """Sequences of one shard of the store."""


class LiveLogits(Model):
    """The teacher runs beside the student, in its job; nothing is stored."""

    mode: Literal["live"]


Logits = Annotated[
    OfflineLogits | OnlineLogits | LiveLogits,
    Field(discriminator="mode"),
    BeforeValidator(by_default("mode", "offline")),
]
"""When the teacher's distributions are computed."""


class Teacher(Model):
    """Whose next-token distributions are learnt."""

    model: TeacherModel
    """The model."""
    logits: Logits = OfflineLogits.model_construct()
    """When its distributions are computed."""
    truncation: Truncation = TopPTopK.model_construct()
    """What of them is stored and learnt."""
