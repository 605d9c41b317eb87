"""Peak memory of one device by arithmetic: what lies there when a training step, or a capture, needs most.

The static part (parameters, gradients, optimizer) is exact: it follows FSDP2's rule, which cuts every tensor along its
first dimension and rounds up. The rest counts the tensors that autograd keeps in torchtitan's blocks, and what its
chunked loss makes of the logits. Not counted: the CUDA context, NCCL's buffers and the allocator's gaps.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pdforge.plan.batch import split_batch
from pdforge.plan.jobs import CaptureJob, ModelSource, TrainJob, kept
from pdforge.recipe.models import Architecture, Parallelism

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of a number, by dtype."""
_CAPTURED_AT_ONCE = 64 * 2**20
"""Logits, in numbers, that a capture makes at one time (`stages/capture.py`)."""


class Component(NamedTuple):
    """A part of the peak."""

    name: str
    bytes: int


class Memory(NamedTuple):
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
WHOLE = "whole gradients"
TEACHER = "teacher"
ORDER = (*STATIC, GATHERED, ACTIVATIONS, LOSS, BACKWARD, WHOLE, TEACHER)
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
    return max((_Trained(job, part).memory for part in parts_of_model(job)), key=lambda memory: memory.total)


def heaviest_rank(job: TrainJob) -> int:
    """The first of the ranks that `training_memory` is of: torchtitan gives each part of a pipeline its own run of
    them.
    """
    totals = [_Trained(job, part).memory.total for part in parts_of_model(job)]
    return totals.index(max(totals)) * (job.processes // len(totals))


class Part(NamedTuple):
    """What the devices at one place of a pipeline hold; without one, the model."""

    layers: int
    embedding: bool
    output: bool
    """The last norm and the output projection."""
    in_flight: int
    """Sequences whose activations lie there at one time."""


def parts_of_model(job: TrainJob) -> list[Part]:
    """By the place in the pipeline: torchtitan counts embedding and output layer as a block each."""
    spread, layers = job.training.parallelism, job.architecture.layers
    places, micro = spread.pipeline, job.training.batch.micro
    if places == 1:
        return [Part(layers, embedding=True, output=True, in_flight=micro)]
    rounds = stages_of_a_place(spread)
    stages = places * rounds
    held = [
        (layers + 2) // stages + (stage < (layers + 2) % stages) - (stage == 0) - (stage == stages - 1)
        for stage in range(stages)
    ]
    return [
        Part(
            sum(held[place::places]),
            embedding=place == 0,
            output=place == places - 1,
            in_flight=min(micro, spread.pipeline_microbatch * _in_flight(places, place, rounds)),
        )
        for place in range(places)
    ]


def stages_of_a_place(spread: Parallelism) -> int:
    """Stages of the pipeline on every device."""
    return 2 if spread.pipeline_schedule == "interleaved_1f1b" else 1


def _in_flight(places: int, place: int, rounds: int) -> int:
    """Micro-batches of a pipeline that a place has begun before its first backward pass, and the one in it."""
    if rounds == 1:
        return places - place
    return -(-((rounds - 1) * places + 2 * (places - 1 - place) + 1) // rounds)


def capture_memory(job: CaptureJob) -> Memory | None:
    """Of a capture; None where the teacher's shape is unknown."""
    shape = job.teacher.architecture
    if shape is None:
        return None
    width, vocabulary, length = BYTES[job.precision], job.teacher.vocabulary, job.teacher.sequence_length
    # torchtitan's weights are read in float32, and then converted; others reach the device as they are used
    weights = (4 if isinstance(job.teacher, ModelSource) else width) * _frozen(shape, vocabulary, job.shard)
    positions = job.micro * length
    hidden = width * positions * (4 * shape.hidden + 3 * shape.ffn)
    rows = max(1, _CAPTURED_AT_ONCE // vocabulary)
    # logits, their float32 log-softmax, and a sorted copy with its ids
    logits = min(rows, positions) * vocabulary * (width + 4 + 4 + 8)
    return Memory((Component("parameters", weights), Component(ACTIVATIONS, hidden), Component(LOSS, logits)))


class _Trained:
    """A training step on the ranks that hold a part of the model."""

    def __init__(self, job: TrainJob, part: Part) -> None:
        self.job, self.part, self.shape, self.vocabulary = job, part, job.architecture, job.vocabulary
        training = job.training
        spread = training.parallelism
        split = split_batch(training, job.processes, place=job.place)
        self.tensor = spread.tensor
        self.shard = split.data_parallel // spread.data_replicate * spread.context
        self.width = BYTES[training.precision]
        self.pipelined = spread.pipeline > 1
        sequences = spread.pipeline_microbatch if self.pipelined else training.batch.micro
        self.positions = sequences * job.sequence_length // spread.context
        """Of a pass through the model."""
        head = self.shape.head_dim or self.shape.hidden // self.shape.heads
        self.query = self.shape.heads * head
        self.key_value = (self.shape.kv_heads or self.shape.heads) * head

    @property
    def memory(self) -> Memory:
        """By what it is for."""
        parts = [
            Component("parameters", 4 * self.elements),
            Component("gradients", 4 * self.elements),
            Component("optimizer", 8 * self.elements),
            Component(GATHERED, self.gathered),
            Component(ACTIVATIONS, self.activations),
        ]
        loss, backward = self.loss if self.part.output else 0, self.backward
        parts.append(Component(LOSS, loss) if loss >= backward else Component(BACKWARD, backward))
        parts += [Component(WHOLE, self.whole_gradients)] if self.whole_gradients else []
        parts += [Component(TEACHER, self.teacher)] if self.teacher else []
        return Memory(tuple(parts))

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
        return self._elements(gathered=False)

    def _elements(self, *, gathered: bool) -> int:
        part, hidden = self.part, self.shape.hidden
        tables = part.output + (part.embedding and not (part.output and self.shape.tied_embeddings))
        table = self._local([Tensor(self.vocabulary, hidden, 0)], gathered=gathered)
        norm = self._local([Tensor(hidden, 1, -1)], gathered=gathered) if part.output else 0
        return tables * table + part.layers * self._local(block_tensors(self.shape), gathered=gathered) + norm

    @property
    def gathered(self) -> int:
        """The block at work and the one fetched ahead, in the precision of the products; nothing is gathered alone. A
        pipeline keeps what it has gathered until its last micro-batch.
        """
        if self.shard == 1 and self.width == 4:
            return 0
        return self.width * (self._elements(gathered=True) if self.pipelined else 2 * self.block)

    @property
    def whole_gradients(self) -> int:
        """A pipeline adds up gradients of whole tensors in float32, and divides them after its last micro-batch."""
        if not self.pipelined or (self.shard == 1 and self.width == 4):
            return 0
        return 4 * self._elements(gathered=True)

    @property
    def activations(self) -> int:
        """What autograd keeps of every block until its backward pass."""
        each = {
            "none": self.width * kept_of_a_block(self.shape) + float32_of_a_block(self.shape),
            "selective": self.width * self._selected + 4 * self.shape.heads,
            "full": self.width * self.shape.hidden,
        }[self.job.training.activation_checkpointing]
        positions = self.part.in_flight * self.job.sequence_length // self.job.training.parallelism.context
        of_blocks = self.part.layers * positions * each // self.tensor
        # the embedding's output, and the last norm's input and output
        ends = self.part.embedding + 2 * self.part.output
        return of_blocks + ends * self.width * positions * self.shape.hidden

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
        """The backward pass of a block at its worst: where it begins, what is computed again, the gradients passing
        through, the first weight's gradient, and the block behind it still on its way to its shards; or where it ends,
        with all gradients of its weights and their float32 copy for that way.
        """
        divided = self.shard > 1 or self.width < 4
        way = 4 * self.block if divided else 0
        first = self.width * Tensor(self.shape.hidden, self.shape.ffn, 1).local(1, self.tensor) if divided else 0
        passing = self.width * self.positions * (3 * self.shape.ffn + 2 * self.shape.hidden) // self.tensor
        again = self.width * self._computed_again * self.positions // self.tensor
        return max(again + passing + first + way, (self.width * self.block if divided else 0) + way)

    @property
    def _computed_again(self) -> int:
        """Numbers a position of one block that activation checkpointing did not keep."""
        mode = self.job.training.activation_checkpointing
        if mode == "none":
            return 0
        return kept_of_a_block(self.shape) - (self._selected if mode == "selective" else 0)

    @property
    def _selected(self) -> int:
        """Numbers a position that selective checkpointing keeps of one block: its input, every second product (q, v,
        gate, down) and attention's result.
        """
        return 2 * self.shape.hidden + 2 * self.query + self.key_value + self.shape.ffn

    @property
    def teacher(self) -> int:
        """The teacher's entries as they travel, twice while a batch is cut into chunks; and its weights beside them."""
        job = self.job
        learnt = [job.truncation] if job.teacher and job.truncation else job.learnt
        if not learnt:
            return 0
        # each teacher's entries are padded to those of the one with most
        entries = len(learnt) * min(max(kept(each)[1] for each in learnt), self.vocabulary)
        travelling = 2 * 4 * (1 + 2 * entries) * job.training.batch.micro * job.sequence_length
        return travelling + weights_beside(job)


def weights_beside(job: TrainJob) -> int:
    """Bytes of the frozen teacher in a training's own job, on one device; 0 where there is none, or its shape is
    unknown. Its layers are sharded over `data_shard`.
    """
    shape = job.teacher.architecture if job.teacher else None
    if shape is None or job.teacher_precision is None:
        return 0
    shard = split_batch(job.training, job.processes, place=job.place).data_parallel
    shard //= job.training.parallelism.data_replicate
    return BYTES[job.teacher_precision] * _frozen(shape, job.vocabulary, shard)


def _frozen(shape: Architecture, vocabulary: int, shard: int) -> int:
    """Elements of a frozen model on one of the devices that share its layers: of these the one at work and the next one
    are whole, the tables everywhere.
    """
    block = block_tensors(shape)
    layers = shape.layers * sum(tensor.local(shard, 1) for tensor in block)
    gathered = 2 * sum(tensor.local(1, 1) for tensor in block) if shard > 1 else 0
    tables = (1 if shape.tied_embeddings else 2) * vocabulary * shape.hidden + shape.hidden
    return layers + gathered + tables


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
