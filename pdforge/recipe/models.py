"""The typed recipe. Field texts are written for users: they feed `--help`, the JSON Schema and the reference page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pdforge.recipe.units import Count, Fraction


class Model(BaseModel):
    """Base of every part of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


# --- data ------------------------------------------------------------------------------------------------------------


class StandardLibraryCorpus(Model):
    """The source files of the standard library of the Python that runs the job: text that every machine has."""

    kind: Literal["python-stdlib"]
    bytes: Count = 12_000_000
    """Take files, in a fixed pseudo-random order, until this many bytes are reached."""


class TextCorpus(Model):
    """Plain text files, one document a file."""

    kind: Literal["text"]
    path: str
    """A file or glob, local or any fsspec URL (`s3://…`)."""


class JsonLinesCorpus(Model):
    """JSON Lines, one document a row; `.gz` and `.zst` are read as they are."""

    kind: Literal["jsonl"]
    path: str
    """A file or glob, local or any fsspec URL (`s3://…`)."""
    text: str = "text"
    """The key that holds the document's text."""


Corpus = Annotated[StandardLibraryCorpus | TextCorpus | JsonLinesCorpus, Field(discriminator="kind")]


class TrainedTokenizer(Model):
    """A byte-level BPE tokenizer, trained on the corpus by the `tokenizers` library."""

    kind: Literal["trained"]
    vocabulary: Annotated[Count, Field(ge=257)]
    """Size of the vocabulary: 256 bytes, the document separator, and merges."""


class PretrainedTokenizer(Model):
    """An existing Hugging Face tokenizer (`tokenizer.json`)."""

    kind: Literal["pretrained"] = "pretrained"
    path: str
    """A local directory or file."""
    revision: str | None = None
    """Git revision, where the path is a hub id."""
    vocabulary: Annotated[Count, Field(ge=2)] | None = None
    """Rows of the embedding; at least the tokenizer's own size, which is the default where the path is local."""
    separator: str = "<|endoftext|>"
    """The token that starts every document."""


def _default_kind(value: Any) -> Any:
    return {"kind": "pretrained", **value} if isinstance(value, dict) and "kind" not in value else value


Tokenizer = Annotated[
    TrainedTokenizer | PretrainedTokenizer, Field(discriminator="kind"), BeforeValidator(_default_kind)
]


class Data(Model):
    """What is learnt from."""

    corpus: Corpus
    """Where the text comes from."""
    tokenizer: Tokenizer
    """How text becomes tokens; teacher and student share it."""
    sequence_length: Annotated[Count, Field(ge=8)]
    """Tokens of one packed sequence."""
    train_tokens: Count
    """Tokens of the training split. More than the corpus holds is an error."""
    validation_tokens: Count
    """Tokens of the held-out split: other documents, never trained on."""
    seed: int = Field(default=0, ge=0)
    """Orders documents and sequences."""


# --- models ----------------------------------------------------------------------------------------------------------


class Architecture(Model):
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
    rope_theta: Annotated[float, Field(gt=0)] = 500_000.0
    """Base of the rotary position frequencies."""
    tied_embeddings: bool = False
    """Input and output embeddings are one matrix."""


# --- schedules -------------------------------------------------------------------------------------------------------


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


def _constant(value: Any) -> Any:
    plain = isinstance(value, int | float | str) and not isinstance(value, bool)
    return {"schedule": "constant", "value": value} if plain else value


AlphaSchedule = Annotated[
    Constant | LinearIncrease | LinearDecrease | Period | WarmupStableDecay | WarmupStableDecayOfRest | Cosine,
    Field(discriminator="schedule"),
    BeforeValidator(_constant),
]
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


# --- training --------------------------------------------------------------------------------------------------------


class Batch(Model):
    """Batch sizes, in sequences."""

    global_: Annotated[Count, Field(alias="global")]
    """Sequences of one optimizer step, over all devices."""
    micro: Count = 1
    """Sequences a device takes at once; the rest of the global batch is accumulated."""

    model_config = ConfigDict(populate_by_name=True)


class AdamW(Model):
    """AdamW; norms and embeddings are not decayed."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 6.0e-4
    """Peak learning rate."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Decay of the moments."""
    eps: Annotated[float, Field(gt=0, lt=1)] = 1e-8
    """Added to the denominator."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Decoupled weight decay."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""


class Parallelism(Model):
    """How a model is spread over devices."""

    data_shard: Literal["auto"] | Count = "auto"
    """FSDP degree; `auto` takes what is left."""
    data_replicate: Count = 1
    """HSDP replicas."""
    tensor: Count = 1
    """Tensor-parallel degree."""
    pipeline: Count = 1
    """Pipeline stages."""
    context: Count = 1
    """Context-parallel degree."""


class Checkpointing(Model):
    """When a training stage saves what it needs to go on."""

    every: Count = 500
    """Steps between checkpoints."""
    keep: Annotated[Count, Field(ge=2)] = 3
    """Checkpoints kept; at least 2, since the newest may be half written when a job is killed."""


class Training(Model):
    """One training stage."""

    tokens: Count | None = None
    """Tokens to train on; by default all of `data.train_tokens`."""
    batch: Batch
    """Batch sizes."""
    optimizer: AdamW = AdamW()
    """The optimizer."""
    learning_rate_schedule: LearningRateSchedule = LearningRateWSD(schedule="wsd")
    """The learning rate over the steps."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the matrix products; weights and optimizer state stay in float32."""
    parallelism: Parallelism = Parallelism()
    """How the model is spread over devices."""
    checkpoint: Checkpointing = Checkpointing()
    """When to save."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What is computed again in the backward pass instead of being kept."""
    compile: bool = False
    """torch.compile model and loss."""
    loss_chunks: Count = 8
    """The output projection and the loss run in this many parts of the sequence: never all logits at once."""
    log_every: Count = 10
    """Steps between rows of metrics."""
    seed: int = Field(default=0, ge=0)
    """Initial weights."""


# --- teacher, student, objective -------------------------------------------------------------------------------------


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
    path: str
    """The checkpoint folder, with `step-N` below it."""
    step: Count
    """Which of its steps."""
    architecture: Architecture
    """Its shape."""


TeacherModel = Annotated[PretrainedHere | TorchtitanTeacher, Field(discriminator="kind")]


class TopPTopK(Model):
    """Keep the smallest set of tokens whose mass at τ=1 is at least `top_p`, then the `top_k` most probable of them (Eq. 4)."""

    kind: Literal["topp_topk"] = "topp_topk"
    top_p: Annotated[float, BeforeValidator(lambda v: v), Field(gt=0, le=1)] = 0.95
    """Probability mass to keep."""
    top_k: Annotated[Count, Field(le=255)] = 100
    """Tokens to keep at most."""


class OfflineLogits(Model):
    """The teacher's distributions are stored before the student starts."""

    mode: Literal["offline"] = "offline"
    shard_sequences: Count = 512
    """Sequences of one shard of the store."""


class Teacher(Model):
    """Whose next-token distributions are learnt."""

    model: TeacherModel
    """The model."""
    logits: OfflineLogits = OfflineLogits()
    """When its distributions are computed."""
    truncation: TopPTopK = TopPTopK()
    """What of them is stored and learnt."""


class Student(Model):
    """The model that is pre-trained."""

    architecture: Architecture
    """Its shape."""


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
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    """τ: softens the teacher's distribution only."""
    alpha: AlphaSchedule = Constant(value=0.9)
    """Weight of the distillation loss."""


class Recipe(Model):
    """What is to be learnt from whom. Never where it runs."""

    recipe: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Name: lower-case letters, digits, `.`, `_` and `-`."""
    description: str = ""
    """One line for people."""
    data: Data
    """What is learnt from."""
    teacher: Teacher | None = None
    """Whose distributions are learnt; may be left out where α is 0 throughout."""
    student: Student
    """The model that is pre-trained."""
    objective: Objective = Objective()
    """What is minimised."""
    training: Training
    """How the student is trained."""
