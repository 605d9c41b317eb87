"""Peak memory of one device by arithmetic: what lies there when a training step, or a capture, needs most.

The static part (parameters, gradients, optimizer) is exact: it follows FSDP2's rule, which cuts every tensor along its
first dimension and rounds up. The rest counts the tensors that autograd keeps in torchtitan's blocks, and what its
chunked loss makes of the logits. Not counted: the CUDA context, NCCL's buffers and the allocator's gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pdforge.plan.batch import split_batch
from pdforge.plan.jobs import CaptureJob, TrainJob, kept
from pdforge.recipe.models import Architecture
from pdforge.recipe.sizes import parameter_count

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CAPTURED_AT_ONCE = 64 * 2**20
"""Logits, in numbers, that a capture makes at one time (`stages/capture.py`)."""


class Component(NamedTuple):
    """A part of the peak."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Memory:
    """Peak memory of one device of a stage: that of the rank that needs most."""

    parts: tuple[Component, ...]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(part.bytes for part in self.parts)

    @property
    def static(self) -> int:
        """Bytes of parameters, gradients and optimizer."""
        return sum(part.bytes for part in self.parts if part.name in STATIC)


STATIC = ("parameters", "gradients", "optimizer")
ACTIVATIONS = "activations"
LOSS = "logits chunk, output layer"
BACKWARD = "backward of a block"
GATHERED = "gathered weights"
TEACHER = "teacher"
ORDER = (*STATIC, GATHERED, ACTIVATIONS, LOSS, BACKWARD, TEACHER)
"""In which components are shown."""


class Tensor(NamedTuple):
    """A parameter tensor, as far as its division over devices goes."""

    rows: int
    columns: int
    split: int
    """Which dimension tensor parallelism divides: 0, 1, or -1 for none."""

    def local(self, shard: int, tensor: int) -> int:
        """Elements on the rank that has most."""
        rows, columns = self.rows, self.columns
        if self.split == 0:
            rows = -(-rows // tensor)
        elif self.split == 1:
            columns = -(-columns // tensor)
        return -(-rows // shard) * columns


def block_tensors(shape: Architecture) -> list[Tensor]:
    """The parameters of one transformer block."""
    head = shape.head_dim or shape.hidden // shape.heads
    query, key_value = shape.heads * head, (shape.kv_heads or shape.heads) * head
    norms = [Tensor(shape.hidden, 1, -1)] * 2 + ([Tensor(head, 1, -1)] * 2 if shape.family == "qwen3" else [])
    return [
        Tensor(query, shape.hidden, 0),
        Tensor(key_value, shape.hidden, 0),
        Tensor(key_value, shape.hidden, 0),
        Tensor(shape.hidden, query, 1),
        Tensor(shape.ffn, shape.hidden, 0),
        Tensor(shape.ffn, shape.hidden, 0),
        Tensor(shape.hidden, shape.ffn, 1),
        *norms,
    ]


def training_memory(job: TrainJob) -> Memory:
    """Of a training stage.

    Raises:
        UsageError: the job's parallelism does not fit its processes.
    """
    model = _Trained(job)
    parts = [
        Component("parameters", 4 * model.elements),
        Component("gradients", 4 * model.elements),
        Component("optimizer", 8 * model.elements),
        Component(GATHERED, model.gathered),
        Component(ACTIVATIONS, model.activations),
    ]
    loss, backward = model.loss, model.backward
    parts.append(Component(LOSS, loss) if loss >= backward else Component(BACKWARD, backward))
    if teacher := model.teacher:
        parts.append(Component(TEACHER, teacher))
    return Memory(tuple(parts))


def capture_memory(job: CaptureJob) -> Memory | None:
    """Of a capture; None where the teacher's shape is unknown."""
    shape = job.teacher.architecture
    if shape is None:
        return None
    width, vocabulary, length = _BYTES[job.precision], job.teacher.vocabulary, job.teacher.sequence_length
    # a checkpoint is read in float32, and then converted
    weights = max(4, width) * parameter_count(shape, vocabulary).total
    positions = job.micro * length
    hidden = width * positions * (4 * shape.hidden + 3 * shape.ffn)
    rows = max(1, _CAPTURED_AT_ONCE // vocabulary)
    # logits, their float32 log-softmax, and a sorted copy with its ids
    logits = min(rows, positions) * vocabulary * (width + 4 + 4 + 8)
    return Memory((Component("parameters", weights), Component(ACTIVATIONS, hidden), Component(LOSS, logits)))


class _Trained:
    """A training step on the rank that needs most."""

    def __init__(self, job: TrainJob) -> None:
        self.job, self.shape, self.vocabulary = job, job.architecture, job.vocabulary
        training = job.training
        spread = training.parallelism
        split = split_batch(training, job.processes, place=job.place)
        self.tensor = spread.tensor
        self.shard = split.data_parallel // spread.data_replicate * spread.context
        self.width = _BYTES[training.precision]
        self.parts = spread.pipeline * (2 if spread.pipeline_schedule == "interleaved_1f1b" else 1)
        at_once = training.batch.micro
        if spread.pipeline > 1:
            at_once = min(at_once, spread.pipeline * spread.pipeline_microbatch)
        self.sequences = at_once
        self.positions = at_once * job.sequence_length // spread.context
        self.layers = self._layers()
        head = self.shape.head_dim or self.shape.hidden // self.shape.heads
        self.query = self.shape.heads * head
        self.key_value = (self.shape.kv_heads or self.shape.heads) * head

    def _layers(self) -> int:
        """Blocks of the rank with most: torchtitan counts embedding and output layer as one block each."""
        if self.parts == 1:
            return self.shape.layers
        return min(self.shape.layers, -(-(self.shape.layers + 2) // self.parts) * self.parts // self._pipeline)

    @property
    def _pipeline(self) -> int:
        return self.job.training.parallelism.pipeline

    def _local(self, tensors: Iterator[Tensor] | list[Tensor], *, gathered: bool = False) -> int:
        return sum(tensor.local(1 if gathered else self.shard, self.tensor) for tensor in tensors)

    @property
    def block(self) -> int:
        """Elements of one block that was gathered from its shards."""
        return self._local(block_tensors(self.shape), gathered=True)

    @property
    def output_layer(self) -> int:
        """Elements of the gathered output projection."""
        return Tensor(self.vocabulary, self.shape.hidden, 0).local(1, self.tensor)

    @property
    def elements(self) -> int:
        """Elements of the parameters that the rank owns."""
        matrices = 1 if self.shape.tied_embeddings or self._pipeline > 1 else 2
        table = self._local([Tensor(self.vocabulary, self.shape.hidden, 0)])
        norm = self._local([Tensor(self.shape.hidden, 1, -1)])
        return matrices * table + self.layers * self._local(block_tensors(self.shape)) + norm

    @property
    def gathered(self) -> int:
        """The block at work and the one fetched ahead, in the precision of the products; nothing is gathered alone."""
        if self.shard == 1 and self.width == 4:
            return 0
        return 2 * self.width * self.block

    @property
    def activations(self) -> int:
        """What autograd keeps of every block until its backward pass."""
        # selective: the block's input and every second product (q, v, gate, down), attention's result with its sums
        each = {
            "none": self.width * kept_of_a_block(self.shape) + float32_of_a_block(self.shape),
            "selective": self.width * (2 * self.shape.hidden + 2 * self.query + self.key_value + self.shape.ffn)
            + 4 * self.shape.heads,
            "full": self.width * self.shape.hidden,
        }[self.job.training.activation_checkpointing]
        of_blocks = self.layers * self.positions * each // self.tensor
        # the embedding's output, and the last norm's input and output
        return of_blocks + 3 * self.width * self.positions * self.shape.hidden

    @property
    def loss(self) -> int:
        """The chunk of logits at its worst, and what the output projection needs while all chunks go through it."""
        chunks = self.job.training.loss_chunks
        chunk = -(-self.positions // chunks) * -(-self.vocabulary // self.tensor)
        # logits, log-softmax in float32, their gradient, and an eighth of it in float32 (`distill/student.py`)
        logits = chunk * (2 * self.width + 4) + chunk // 2
        summed = 4 if self.width < 4 else 0
        weights = (2 * self.width + summed) * self.output_layer if self.shard > 1 or self.width < 4 else 0
        return logits + weights + (4 + self.width) * self.positions * self.shape.hidden

    @property
    def backward(self) -> int:
        """Gradients of a gathered block on their way to its shards, and a block computed again."""
        gradients = (self.width + 2 * 4) * self.block if self.shard > 1 or self.width < 4 else 0
        again = 0
        if self.job.training.activation_checkpointing != "none":
            again = self.width * kept_of_a_block(self.shape) * self.positions // self.tensor
        passing = self.width * self.positions * (3 * self.shape.ffn + 2 * self.shape.hidden) // self.tensor
        return gradients + again + passing

    @property
    def teacher(self) -> int:
        """The teacher's entries as they travel, twice while a batch is cut into chunks; or its weights."""
        job = self.job
        if job.teacher is not None:
            shape = job.teacher.architecture
            dtype = getattr(job.teacher, "dtype", job.training.precision)
            return _BYTES[dtype] * parameter_count(shape, self.vocabulary).total if shape else 0
        if job.logits is None or job.truncation is None:
            return 0
        entries = min(kept(job.truncation)[1], self.vocabulary)
        return 2 * 4 * (1 + 2 * entries) * self.sequences * job.sequence_length


def kept_of_a_block(shape: Architecture) -> int:
    """Numbers a position that autograd keeps of one block without activation checkpointing.

    Inputs and outputs of both norms; queries, keys and values as attention reads them and its result; the gate before
    and after its activation, the other factor, and their product.
    """
    head = shape.head_dim or shape.hidden // shape.heads
    query, key_value = shape.heads * head, (shape.kv_heads or shape.heads) * head
    normed = query + key_value if shape.family == "qwen3" else 0
    return 4 * shape.hidden + 2 * query + 2 * key_value + normed + 4 * shape.ffn


def float32_of_a_block(shape: Architecture) -> int:
    """Bytes a position that it keeps in float32: attention's and the norms' sums, and the rotation of the position."""
    head = shape.head_dim or shape.hidden // shape.heads
    if shape.family == "qwen3":
        return 4 * (shape.heads + 2 + shape.heads + (shape.kv_heads or shape.heads) + 2 * head)
    return 4 * (shape.heads + 2 + head)
