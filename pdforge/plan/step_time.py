"""How long an optimizer step takes: products at a utilisation of the device's peak, and what devices tell each other.

The one model of a step's time, of the plan and of `pdforge tune`; docs/plan.md has its terms. Our own reading of what
torchtitan sends, in bytes over bandwidth: latencies, and how products of other sizes fare, are left out.
"""

from math import inf
from typing import NamedTuple

from pdforge.plan.batch import Split, split_batch
from pdforge.plan.estimate import flops_per_token, model_flops_per_token
from pdforge.plan.jobs import TrainJob
from pdforge.plan.memory import BYTES, Part, block_tensors, parts_of_model, stages_of_a_place
from pdforge.plan.profile import Profile
from pdforge.recipe.sizes import parameter_count

RECOMPUTED = {"none": 0.0, "selective": 1 / 6, "full": 1 / 3}
"""What activation checkpointing adds to the FLOPs of a model: nothing, half a forward pass's, a forward pass."""
_ACHIEVED = 0.7
"""Of a link's bandwidth, what large collectives reach: our reading."""
_AGAIN = {"none": 0, "selective": 0, "full": 1}
"""Forward passes of a block that are made again, with what they send; selective checkpointing keeps what was sent."""


class StepTime(NamedTuple):
    """Seconds of one optimizer step by what they go on."""

    compute: float
    """Products of the model, forward and backward, and those of a frozen teacher beside it."""
    again: float
    """Products that activation checkpointing makes a second time."""
    shards: float
    """Gathering weights and reducing gradients, as far as no product hides it."""
    tensor: float
    """What tensor parallelism sends; nothing hides it."""
    context: float
    """What context parallelism sends; nothing hides it."""
    pipeline: float
    """Devices of a pipeline that wait: for its first and last micro-batch, and for the place with most to do."""

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(self)


def step_time(job: TrainJob, profile: Profile, rate: float) -> StepTime | None:
    """Of a training step; None where the FLOPs of a teacher beside it are unknown.

    Args:
        job: the training.
        profile: whose devices it runs on; a bandwidth that it does not tell is taken for unlimited.
        rate: FLOP/s of one device's products.

    Raises:
        UsageError: the job's parallelism does not fit its processes.
    """
    flops = model_flops_per_token(job)
    return None if flops is None else _Step(job, profile, flops, rate).time


def products_rate(job: TrainJob, profile: Profile, reached: float) -> float | None:
    """FLOP/s of one device's products where those of its models are `reached` over the whole time: `step_time` the
    other way round. What a step waits for is taken for no more than three quarters of it.
    """
    flops = model_flops_per_token(job)
    if flops is None:
        return None
    took = _Step(job, profile, flops, reached).compute
    slow, fast = reached, 4 * reached
    for _ in range(40):
        middle = (slow + fast) / 2
        if _Step(job, profile, flops, middle).time.total > took:
            slow = middle
        else:
            fast = middle
    return slow


class _Step:
    def __init__(self, job: TrainJob, profile: Profile, flops: float, rate: float) -> None:
        self.job, self.profile, self.shape = job, profile, job.architecture
        self.training = job.training
        self.spread = self.training.parallelism
        self.split: Split = split_batch(self.training, job.processes, place=job.place)
        self.width = BYTES[self.training.precision]
        tokens = self.training.batch.global_ * job.sequence_length / job.processes
        self.compute = flops * tokens / rate
        # of a frozen teacher beside it nothing is made again
        own = flops_per_token(job.architecture, job.vocabulary, job.sequence_length)
        self.again = RECOMPUTED[self.training.activation_checkpointing] * own * tokens / rate
        self.passes = self.split.accumulation
        """Micro-steps of a device, one after the other."""
        through = self.training.batch.micro
        self.sequences = self.spread.pipeline_microbatch if self.spread.pipeline > 1 else through
        self.microbatches = max(1, through // self.sequences)

    @property
    def time(self) -> StepTime:
        tensor, context = self._tensor, self._context
        busy = self.compute + self.again + tensor + context
        waiting = (self._unevenness * (1 + self._bubble) - 1) * busy
        return StepTime(self.compute, self.again, self._shards(self.compute + self.again), tensor, context, waiting)

    def _bandwidth(self, stride: int, degree: int) -> float:
        """Bytes a second that a device gets from a group of `degree` devices, `stride` ranks from one to the next: of
        several on a node each has its own way out.
        """
        a_node = self.profile.processes_per_node
        link = self.profile.link_of_a_gpu or inf
        if stride * degree <= a_node:
            return _ACHIEVED * link
        members = max(1, a_node // stride)
        return _ACHIEVED * min(link, (self.profile.network_of_a_gpu or inf) * members)

    @property
    def _blocks(self) -> float:
        """Of one device, on the average."""
        return self.shape.layers / self.spread.pipeline

    @property
    def _positions(self) -> int:
        """Of all sequences of a step on one device, each divided by context parallelism."""
        return self.passes * self.microbatches * self.sequences * self.job.sequence_length // self.spread.context

    @property
    def _tensor(self) -> float:
        """Each block gathers its input and scatters its result in attention and in the feed-forward network, forward
        and backward; embedding and output layer together do as much.
        """
        degree = self.spread.tensor
        times = 8 + 4 * _AGAIN[self.training.activation_checkpointing]
        sent = self.width * self._positions * self.shape.hidden * (degree - 1) / degree
        return times * (self._blocks + 1) * sent / self._bandwidth(1, degree)

    @property
    def _context(self) -> float:
        """Each block gathers keys and values of the whole sequence, and scatters their gradients."""
        degree, tensor = self.spread.context, self.spread.tensor
        head = self.shape.head_dim or self.shape.hidden // self.shape.heads
        keys_and_values = 2 * head * (self.shape.kv_heads or self.shape.heads) / tensor
        times = 2 + _AGAIN[self.training.activation_checkpointing]
        sent = self.width * self._positions * keys_and_values * (degree - 1)
        return times * self._blocks * sent / self._bandwidth(tensor, degree)

    def _shards(self, products: float) -> float:
        """Every micro-step gathers weights forward and backward (a pipeline once for all its micro-batches) and reduces
        float32 gradients. The first block is waited for, and the last; of the others what takes longer than products.
        """
        tensor, context, replicas = self.spread.tensor, self.spread.context, self.spread.data_replicate
        shard = self.split.data_parallel // replicas * context
        weights = parameter_count(self.shape, self.job.vocabulary).total / tensor / self.spread.pipeline
        gathers = 1 if self.spread.pipeline > 1 else 2
        sent = weights * (gathers * self.width + 4) * (shard - 1) / shard
        seconds = sent / self._bandwidth(tensor, shard)
        reduced = 2 * 4 * weights / shard * (replicas - 1) / replicas
        seconds += reduced / self._bandwidth(tensor * shard, replicas)
        hidden = products / self.passes
        return self.passes * (max(0.0, seconds - hidden) + seconds / (self._blocks + 1))

    @property
    def _bubble(self) -> float:
        """Time in which a device of a pipeline has no micro-batch, as a part of that in which it has one."""
        return (self.spread.pipeline - 1) / (self.microbatches * stages_of_a_place(self.spread))

    @property
    def _unevenness(self) -> float:
        """What the place of a pipeline with most to do has, over the mean."""
        block = sum(tensor.rows * tensor.columns for tensor in block_tensors(self.shape))
        head = self.shape.head_dim or self.shape.hidden // self.shape.heads
        block += self.shape.heads * 2 * head * self.job.sequence_length
        table = self.job.vocabulary * self.shape.hidden

        def work(part: Part) -> int:
            return part.layers * block + part.output * table

        works = [work(part) for part in parts_of_model(self.job)]
        return max(works) * len(works) / sum(works)
