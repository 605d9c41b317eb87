"""`teacher`: whose next-token distributions are learnt, and what of them is kept."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pdforge.recipe.parts.architecture import Architecture
from pdforge.recipe.parts.base import Model, by_default
from pdforge.recipe.parts.objective import Objective
from pdforge.recipe.parts.training import Training
from pdforge.recipe.units import Count, Fraction, Text


class PretrainedHere(Model):
    """A teacher that this run pre-trains first, on the same token store."""

    kind: Literal["pretrain"]
    architecture: Architecture
    """Its shape."""
    training: Training
    """How it is trained."""


class DistilledHere(Model):
    """A teacher that this run distils first, from a teacher of its own: the assistant in a chain of them."""

    kind: Literal["distilled"]
    architecture: Architecture
    """Its shape."""
    training: Training
    """How it is trained."""
    objective: Objective = Objective.model_construct()
    """What it minimises."""
    teacher: "Teacher"
    """Whose distributions it learns; its model may be `distilled` again."""


class TorchtitanTeacher(Model):
    """A model of torchtitan's, with the weights of a checkpoint or of a directory in Hugging Face's format."""

    kind: Literal["torchtitan"]
    path: Text
    """The checkpoint folder, with `step-N` below it; without `step` a directory in Hugging Face's format."""
    step: Count | None = None
    """Which of its steps."""
    architecture: Architecture
    """Its shape."""


class HuggingFaceTeacher(Model):
    """A causal language model of the Hugging Face hub, or a local directory in its format."""

    kind: Literal["huggingface"]
    path: Text
    """A hub id such as `zai-org/glm-4-9b-hf`, or a local directory."""
    revision: Text | None = None
    """Git revision, where the path is a hub id; without one the weights may change under a finished run."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of weights and forward pass."""
    gguf_file: Text | None = None
    """The model is this GGUF file of the directory or repository; its weights become `dtype`."""
    trust_remote_code: Text | None = None
    """Let code that comes with the model run, and say why: it can do whatever you can. Never by default."""
    shard: Count = 1
    """Processes that hold one copy of the model's layers together (FSDP2), where one device does not hold them."""
    architecture: Architecture | None = None
    """Its shape, for sizes and estimates only: the model's own configuration is what runs. Plans need it where neither
    `config.json` of a local directory says it nor the model is well known."""


TeacherModel = Annotated[
    PretrainedHere | DistilledHere | TorchtitanTeacher | HuggingFaceTeacher, Field(discriminator="kind")
]


class TopPTopK(Model, defer_build=False):
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
    """Draws of a position."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of the draws: each position has its own, made of this one and its place in the token store."""


Truncation = Annotated[TopPTopK | Sample, Field(discriminator="kind"), BeforeValidator(by_default("kind", "topp_topk"))]
"""What of a distribution is kept."""


Codec = Literal["rank-gap-63", "rank-gap-127", "context-40", "context-63", "rank-gap-float16", "lossless"]
"""Codecs of the logit store for truncated distributions (`docs/store.md`)."""

Column = Literal["entropy", "standard_deviation", "logsumexp", "label_logprob"]
"""What a logit store can hold of a position besides its distribution, from the full float32 logits."""


class StoredLogits(Model):
    """How distributions are stored."""

    keep: TopPTopK | None = None
    """What is stored, where that is more than `teacher.truncation`, which is what is learnt of it. Runs that keep the
    same share one store, whatever each learns; by default a run keeps what it learns."""
    shard_sequences: Count = 512
    """Sequences of one shard of the store."""
    codec: Codec | None = None
    """How they are stored: `rank-gap-63` or `rank-gap-127` (that many levels of probability), `context-40` or
    `context-63` (64 rank tables: a tenth smaller), `rank-gap-float16`, `lossless` (float32). By default `rank-gap-63`,
    about 12 bits an entry; for sampled distributions exact counts, and nothing else."""
    columns: tuple[Column, ...] = ()
    """What is stored of each position besides: `entropy` (nats) and `standard_deviation` (of the logits over the
    vocabulary), `logsumexp` of the logits, `label_logprob`; all from the teacher's full logits. What the objective
    needs of them is stored without being named here."""


class OfflineLogits(StoredLogits):
    """The teacher's distributions are stored before the student starts."""

    mode: Literal["offline"] = "offline"


class OnlineLogits(StoredLogits):
    """The teacher's distributions are stored while it is pre-trained, each from the weights of its own step."""

    mode: Literal["online"]
    from_step: Count
    """First step of the teacher's training whose distributions are stored; those before it never are."""


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
    """What of them is learnt, and stored unless `logits.keep` says more."""


class TeacherBeside(Model):
    """A teacher that runs beside the student, in its job; nothing of it is stored."""

    model: TeacherModel
    """The model."""
    truncation: Truncation = TopPTopK.model_construct()
    """What of its distributions is learnt."""


class WeightedTeacher(Teacher):
    """One of several teachers of one student."""

    weight: Fraction
    """Of its L_kd; the weights of all teachers sum to 1."""
