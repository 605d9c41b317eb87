"""`training`: how a model is trained."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pdforge.recipe.parts.base import Model
from pdforge.recipe.parts.schedules import LearningRateSchedule, LearningRateWSD
from pdforge.recipe.units import Count, Duration, Flag, Real, Seed


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
    learning_rate: Annotated[Real, Field(gt=0, lt=1)] = 6.0e-4
    """Peak learning rate."""
    betas: tuple[Annotated[Real, Field(ge=0, lt=1)], Annotated[Real, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Decay of the moments."""
    eps: Annotated[Real, Field(gt=0, lt=1)] = 1e-8
    """Added to the denominator."""
    weight_decay: Annotated[Real, Field(ge=0, le=1)] = 0.1
    """Decoupled weight decay."""
    clip: Annotated[Real, Field(gt=0)] = 1.0
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
    pipeline_schedule: Literal["1f1b", "interleaved_1f1b"] = "1f1b"
    """Order of the pipeline's passes; `interleaved_1f1b` gives every device two parts of the model."""
    pipeline_microbatch: Count = 1
    """Sequences that go through the pipeline at once; a micro batch must hold one for every part of the model."""
    context: Count = 1
    """Context-parallel degree."""


class Checkpointing(Model):
    """When a training stage saves what it needs to go on."""

    every: Count = 500
    """Steps between checkpoints."""
    keep: Count = 3
    """Checkpoints kept; at least 2, since the newest may be half written when a job is killed."""
    interval: Duration | None = None
    """Longest time between checkpoints: one is also saved when this much has passed since the last (`30m`)."""


class Training(Model, defer_build=False):
    """One training stage."""

    tokens: Count | None = None
    """Tokens to train on; by default all of `data.train_tokens`, `epochs` times."""
    steps: Count | None = None
    """Optimizer steps, instead of `tokens`."""
    epochs: Count = 1
    """Times that the training sequences may be read: once as they are stored, then every time in another order."""
    batch: Batch
    """Batch sizes."""
    optimizer: AdamW = AdamW.model_construct()
    """The optimizer."""
    learning_rate_schedule: LearningRateSchedule = LearningRateWSD.model_construct(schedule="wsd")
    """The learning rate over the steps."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the matrix products; weights and optimizer state stay in float32."""
    parallelism: Parallelism = Parallelism.model_construct()
    """How the model is spread over devices."""
    checkpoint: Checkpointing = Checkpointing.model_construct()
    """When to save."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What is computed again in the backward pass instead of being kept."""
    compile: Flag = False
    """torch.compile model and loss."""
    loss_chunks: Count = 8
    """The output projection and the loss run in this many parts of the sequence: never all logits at once."""
    log_every: Count = 10
    """Steps between rows of metrics."""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb"], ...], Field(max_length=2)] = ()
    """Where the metrics go besides `metrics.jsonl`: TensorBoard's files in the stage's `tb/`, Weights & Biases."""
    validate_every: Count | None = None
    """Steps between measurements of the held-out loss; by default it is measured at the end only."""
    seed: Seed = 0
    """Initial weights."""
