"""The figures of a plan, typed: everything that `pdforge plan` shows, in whatever form. Made by `make_page`.

Bytes, seconds, tokens and FLOPs are plain numbers; None is unknown, and is shown as unknown, or does not apply.
"""

from typing import Any, NamedTuple

from pdforge.plan.curves import Curve
from pdforge.plan.duration import Duration
from pdforge.plan.memory import Memory
from pdforge.plan.storage import CheckpointFigures, StoreFigures

UNTIMED = ("tokenize", "tokenize-conversations", "export", "evaluate")
"""Kinds of stage that take no FLOPs worth counting, and little time."""


class Place(NamedTuple):
    """The cluster profile, as far as figures go."""

    profile: str
    executor: str
    device: str
    nodes: int
    processes: int
    gpu: str | None
    gpu_memory: int | None
    peak_flops: float | None
    walltime: int | None
    """Seconds; None where nothing ends a job."""
    price: float | None
    currency: str
    disk: int | None
    """Bytes that are free for runs."""
    disk_read: int | None
    disk_write: int | None
    runs_at_once: int | None


class Run(NamedTuple):
    """One run of the plan."""

    label: str
    hash: str
    directory: str
    logits: str
    """Where its distributions come from; empty: none are stored."""
    extends: str
    """Where its student goes on from; empty: it begins at its first step."""
    teacher: str
    """In words, as the next two; empty: it learns nothing of one."""
    truncation: str
    loss: str
    seed: str


class Model(NamedTuple):
    """Teacher, assistant or student."""

    role: str
    name: str
    parameters: int | None
    embedding: int | None
    """Of them, the input embedding's."""
    active: int | None
    """That a token goes through: all but a lookup."""
    training_flops: int | None
    """A token, forward and backward."""
    forward_flops: float | None
    """A token."""
    source: str
    """Of its shape."""


class Batch(NamedTuple):
    """How one optimizer step is divided."""

    sequences: int
    """Global batch."""
    length: int
    micro: int
    data_parallel: int
    accumulation: int

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.sequences * self.length


class Step(NamedTuple):
    """One stage."""

    number: int
    key: str
    kind: str
    title: str
    directory: str
    needs: tuple[int, ...]
    processes: int
    """At one time."""
    done: bool
    steps: int | None
    tokens: int | None
    epochs: float | None
    """Tokens read, over those of the training split."""
    flops: float | None
    """As time and money, without what it has from the run that it goes on from; steps and tokens are the student's."""
    bytes: int | None
    """On disk when it is done."""
    bytes_at_most: int | None
    """A bound, where `bytes` is unknown."""
    duration: Duration | None
    requeues: int | None
    cost: float | None
    read_rate: float | None
    """Bytes a second that it reads of stores, on average."""
    write_rate: float | None
    """Bytes a second that it writes, on average."""
    memory: Memory | None
    batch: Batch | None = None
    curves: tuple[Curve, ...] = ()
    checkpoints: CheckpointFigures | None = None
    store: StoreFigures | None = None

    @property
    def runs_a_model(self) -> bool:
        """Whether its FLOPs are those of a model: not of a capture that puts in order what a teacher stored itself."""
        return self.kind not in UNTIMED and self.flops != 0

    @property
    def process_hours(self) -> float | None:
        """GPU-hours, or those of CPU processes."""
        return self.duration.seconds * self.processes / 3600 if self.duration else None


class Total(NamedTuple):
    """Of the stages that are not done."""

    seconds: float | None
    """Wall-clock, as far as stages run at one time (`wall_clock`)."""
    low: float | None
    high: float | None
    process_hours: float | None
    cost: float | None
    bytes: int | None
    """On disk, bounds included."""


class Finding(NamedTuple):
    """Something to know before it runs."""

    code: str
    severity: str
    place: str
    message: str
    help: str
    evidence: str
    """Why, and what says so."""


class PlanPage(NamedTuple):
    """All figures of the plans of one recipe on one profile."""

    name: str
    description: str
    root: str
    place: Place
    runs: tuple[Run, ...]
    stages: tuple[Step, ...]
    models: tuple[Model, ...]
    total: Total
    findings: tuple[Finding, ...]
    unread: tuple[str, ...]
    """Why identities are provisional; empty: they are not."""

    def to_json(self) -> dict[str, Any]:
        """For `--format json`: records become objects, and tuples lists."""
        found: dict[str, Any] = _plain(self)
        for stage, row in zip(self.stages, found["stages"], strict=True):
            row["process_hours"] = stage.process_hours
            row["memory"] = stage.memory and {**dict(stage.memory.parts), "total": stage.memory.total}
        return found


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
