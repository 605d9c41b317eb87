"""Cluster profiles: where a plan runs. Never part of a run's identity."""

import os
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pdforge.errors import UsageError
from pdforge.plan.hardware import GPUS
from pdforge.recipe.parts.base import Model
from pdforge.recipe.units import Duration, Fraction, Real, Size, Text, parse_count

Whole = Annotated[int, BeforeValidator(parse_count), Field(ge=1)]
"""A number of things, at least one."""

_FromZero = Annotated[int, BeforeValidator(parse_count), Field(ge=0)]


_CONTROL = frozenset(map(chr, (*range(32), 127)))


def _one_line(text: str) -> str:
    """What stands in one line of a job script must not begin another."""
    if not _CONTROL.isdisjoint(text):
        raise ValueError("text of one line without control characters")
    return text


def _lines(text: str) -> str:
    """A shell reads several lines as they are."""
    if not (_CONTROL - {"\n", "\t"}).isdisjoint(text):
        raise ValueError("text without control characters")
    return text


def _name_of_a_variable(name: str) -> str:
    if not (name.isascii() and name.isidentifier()):
        raise ValueError("called as variables are: letters, digits and `_`")
    return name


_Line = Annotated[Text, AfterValidator(_one_line)]
_Lines = Annotated[Text, AfterValidator(_lines)]
_Variable = Annotated[str, AfterValidator(_name_of_a_variable)]


def _known_gpu(name: str) -> str:
    if name not in GPUS:
        raise ValueError(f"one of {', '.join(GPUS)}; for another leave it out and set gpu_memory and peak_flops")
    return name


_SET_BY_FIELD = {
    "nodes": "nodes",
    "ntasks": "processes_per_node",
    "ntasks-per-node": "processes_per_node",
    "cpus-per-task": "cpus_per_node",
    "gpus-per-node": "gpus_per_node",
    "mem": "memory",
    "time": "walltime",
    "signal": "signal_delay",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "exclude": "exclude",
    "array": "capture_tasks",
}
"""By option of sbatch, the field that says it: a plan is made of the field."""
_SET_BY_PDFORGE = ("chdir", "dependency", "export", "hold", "kill-on-invalid-dep", "open-mode", "output", "requeue")
"""Options of sbatch that jobs need as pdforge writes them."""


def _further_option(option: str) -> str:
    _one_line(option)
    written = option.replace("_", "-")  # as submitit does
    if field := _SET_BY_FIELD.get(written):
        raise ValueError(f"left out of `sbatch`: the profile's `{field}` says it")
    if written in _SET_BY_PDFORGE:
        raise ValueError("left out of `sbatch`: pdforge sets it itself")
    return option


class Container(Model):
    """The container that the ranks run in; the batch script itself runs outside."""

    image: _Line
    """An image as the runtime names it: a file, or `docker://…`."""
    runtime: Literal["pyxis", "apptainer"] = "pyxis"
    """pyxis hands the image to enroot through srun; apptainer is called as a command."""
    mounts: tuple[_Line, ...] = ()
    """`SOURCE:TARGET` folders; the storage root is always mounted."""
    python: _Line = "python3"
    """Python inside the image, with pdforge's requirements."""


class Watchdog(Model):
    """How long a stage may go without a sign of progress before its attempt is ended."""

    tokenize: Duration = 1800
    """Of tokenize."""
    pretrain_teacher: Duration = 1800
    """Of pretrain-teacher."""
    capture: Duration = 1800
    """Of capture."""
    train: Duration = 1800
    """Of train."""
    tokenize_conversations: Duration = 1800
    """Of tokenize-conversations."""
    finetune: Duration = 1800
    """Of finetune."""
    export: Duration = 7200
    """Of export, which tells nothing while it works."""
    evaluate: Duration = 14400
    """Of evaluate, which tells nothing within a task."""

    def of(self, kind: str) -> int:
        """Seconds, for a kind of stage."""
        seconds: int = getattr(self, kind.replace("-", "_"))
        return seconds


class Profile(Model):
    """Where and on what the stages run."""

    name: _Line
    """What `--cluster` calls it: the key in `clusters.yaml`."""
    executor: Literal["local", "slurm"] = "local"
    """`local`: processes of this machine; `slurm`: jobs of a SLURM cluster."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What the ranks compute on."""
    nodes: Whole = 1
    """Nodes of a training stage."""
    processes_per_node: Whole = 1
    """Processes of a stage on each node: one per GPU, or CPU processes that talk gloo."""
    gpus: tuple[_FromZero, ...] = ()
    """Local executor: the GPUs to use, by number, a process on each; empty: all that are visible."""
    gpus_per_node: Whole | None = None
    """SLURM: GPUs to ask for on each node, at least one for each of its processes; by default as many, unless `sbatch`
    asks for them.
    """
    cpus_per_node: Whole | None = None
    """SLURM: CPU cores to ask for on each node, shared out among its processes."""
    memory: Size | None = None
    """SLURM: memory to ask for on each node."""
    walltime: Duration = 24 * 3600
    """SLURM: time limit of one job; a stage that takes longer saves, is requeued and goes on."""
    signal_delay: Annotated[Duration, Field(validate_default=True)] = 120
    """SLURM: how long before the limit the ranks are told to save."""
    partition: _Line | None = None
    """SLURM: partition; none: the scheduler's default."""
    account: _Line | None = None
    """SLURM: account to charge."""
    qos: _Line | None = None
    """SLURM: quality of service."""
    constraint: _Line | None = None
    """SLURM: features that the nodes must have."""
    exclude: tuple[_Line, ...] = ()
    """SLURM: nodes never to use."""
    exclude_after: _FromZero = 2
    """SLURM: failures of one node, within `exclude_for` of each other, after which jobs avoid it; 0: never."""
    exclude_for: Duration = 24 * 3600
    """SLURM: how long after its last failure such a node is avoided."""
    setup: tuple[_Lines, ...] = ()
    """SLURM: shell lines that run on the first node before the ranks start (`module load cuda`)."""
    environment: dict[_Variable, Annotated[str, AfterValidator(_lines)]] = Field(default_factory=dict)
    """Variables for the ranks. Never for secrets: they are written into the job script."""
    secrets: tuple[_Variable, ...] = ()
    """Names of variables that must be set where the run is submitted; they reach the ranks by the environment only."""
    container: Container | None = None
    """SLURM: the container that the ranks run in."""
    root: _Line | None = None
    """Storage root for runs with this profile, where neither --root nor $PDFORGE_ROOT is given; a relative one is taken
    from the working directory."""
    sbatch: dict[Annotated[str, AfterValidator(_further_option)], _Line | int | bool] = Field(default_factory=dict)
    """SLURM: further options of sbatch, without dashes: `{mail-type: END, exclusive: true}`; false: not given."""
    srun: tuple[_Line, ...] = ()
    """SLURM: further arguments of srun."""
    capture_tasks: Whole = 1
    """SLURM: tasks of a job array that share a capture; 1: one job with all nodes."""
    array_parallelism: Whole = 256
    """SLURM: tasks of an array that may run at one time."""
    runs_at_once: Whole | None = None
    """Runs of a sweep, or of a recipe's variants, that may train at one time. On this machine by default one after the
    other, else they share its cores or GPUs out; on SLURM by default all."""
    watchdog: Watchdog = Watchdog.model_construct()
    """Limits on the age of the last sign of progress."""
    restarts_without_progress: Whole = 3
    """Starts of a stage in a row without a new step, shard or checkpoint, after which it is not started again."""
    gpu: Annotated[str, AfterValidator(_known_gpu)] | None = None
    """Type of the GPUs, for estimates: `A100-40GB`, `A100-80GB`, `H100` (SXM), `H200`, `L40S`."""
    gpu_memory: Size | None = None
    """Memory of a GPU, for estimates; by default that of `gpu`."""
    peak_flops: Annotated[Real, Field(ge=1e9, le=1e21)] | None = None
    """Dense bfloat16 FLOP/s of a GPU, for estimates; by default those of `gpu`."""
    link: Size | None = None
    """Bytes a second from one GPU to the others of its node, one way, for estimates; by default those of `gpu`."""
    network: Size | None = None
    """Bytes a second from one GPU to other nodes, one way, for estimates; by default what nodes with `gpu` usually
    have."""
    mfu: Annotated[Fraction, Field(ge=0.001)] = 0.35
    """Part of the peak that products reach: assumed until a run has been measured here. What devices wait for, and what
    activation checkpointing computes again, comes on top: the model FLOPs utilisation of a run is lower."""
    price: Annotated[Real, Field(ge=0, le=1e9)] | None = None
    """What an hour of a process (of its GPU) costs; none: the plan says nothing of money."""
    currency: _Line = "USD"
    """Of `price`."""
    disk: Size | None = None
    """Room for runs where the storage root is; by default the free space that this machine sees there, and unknown on a
    cluster."""
    disk_read: Size | None = None
    """Bytes a second that all processes together can read from the storage root (`20GB`); none: unknown."""
    disk_write: Size | None = None
    """Bytes a second that they can write there; none: unknown."""
    on_end: _Lines | None = None
    """Shell command that is run when a run ends, with PDFORGE_RUN, PDFORGE_STAGE and PDFORGE_STATE set."""

    @model_validator(mode="before")
    @classmethod
    def _one_process_a_gpu(cls, values: Any) -> Any:
        """Where the GPUs are listed, they say how many processes there are."""
        if isinstance(values, dict) and values.get("gpus") and "processes_per_node" not in values:
            return {**values, "processes_per_node": len(values["gpus"])}
        return values

    @field_validator("nodes")
    @classmethod
    def _this_machine_is_one(cls, nodes: int, info: ValidationInfo) -> int:
        if nodes > 1 and info.data.get("executor") == "local":
            raise ValueError("1 without `executor: slurm`: the local executor starts processes of this machine only")
        return nodes

    @field_validator("signal_delay")
    @classmethod
    def _time_to_work_before_saving(cls, delay: int, info: ValidationInfo) -> int:
        walltime = info.data.get("walltime", delay + 1)
        if info.data.get("executor") == "slurm" and delay >= walltime:
            raise ValueError(f"shorter than `walltime` ({walltime} s), or a job would only save and be requeued")
        return delay

    @field_validator("gpus")
    @classmethod
    def _a_gpu_for_each_process(cls, gpus: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if len(set(gpus)) < len(gpus):
            raise ValueError("each GPU once")
        if gpus and info.data.get("processes_per_node", 1) > len(gpus):
            raise ValueError("one for each of `processes_per_node`")
        return gpus

    @property
    def processes(self) -> int:
        """Processes of a training stage, on all nodes."""
        return self.nodes * self.processes_per_node

    @field_validator("gpus_per_node")
    @classmethod
    def _one_for_each_process(cls, gpus: int | None, info: ValidationInfo) -> int | None:
        processes = info.data.get("processes_per_node", 1)
        if gpus is not None and info.data.get("device") == "cuda" and processes > gpus:
            raise ValueError(f"at least {processes}: one for each of `processes_per_node`")
        return gpus

    def at_once(self, kind: str, processes: int) -> int:
        """How many processes of a stage run at one time: of a capture that is a job array those of all its tasks that
        may.
        """
        if kind != "capture" or self.executor != "slurm" or self.capture_tasks == 1:
            return processes
        return self.processes_per_node * min(self.capture_tasks, self.array_parallelism)

    @property
    def gpus_asked_for(self) -> int | None:
        """SLURM: GPUs of a node in the words of `gpus_per_node`; None: there are none, or `sbatch` says how they come.

        `gpus: false` there asks for none: a cluster that gives whole nodes may know of no GPUs.
        """
        if self.device != "cuda":
            return None
        elsewhere = any(
            option.startswith("gpus") or (option.startswith(("gres", "tres")) and "gpu" in str(value))
            for option, value in self.sbatch.items()
        )
        return self.gpus_per_node or (None if elsewhere else self.processes_per_node)

    @property
    def memory_of_a_gpu(self) -> int | None:
        """Bytes; None: unknown, or there are none."""
        return self.gpu_memory or (GPUS[self.gpu].memory if self.gpu else None)

    @property
    def flops_of_a_gpu(self) -> float | None:
        """Dense bfloat16 FLOP/s at best; None: unknown, or there are none."""
        return self.peak_flops or (GPUS[self.gpu].flops if self.gpu else None)

    @property
    def link_of_a_gpu(self) -> float | None:
        """Bytes a second within a node; None: unknown, or there are none."""
        return self.link or (GPUS[self.gpu].link if self.gpu else None)

    @property
    def network_of_a_gpu(self) -> float | None:
        """Bytes a second between nodes; None: unknown, or there are none."""
        return self.network or (GPUS[self.gpu].network if self.gpu else None)

    @property
    def local_environment(self) -> dict[str, str]:
        """What the ranks of a local attempt find in their environment, beside what this process has."""
        chosen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus))} if self.gpus else {}
        return {**chosen, **self.environment}

    def devices_of(self, slot: int) -> dict[str, str]:
        """Local executor: the variable that gives the GPUs of one of several stages at once to its ranks.

        Raises:
            UsageError: there are not as many GPUs.
        """
        if self.device != "cuda" or (self.runs_at_once or 1) == 1:
            return {}
        named = ",".join(map(str, self.gpus)) or os.environ.get("CUDA_VISIBLE_DEVICES", "")
        devices = named.split(",") if named else [str(number) for number in range(visible_gpus())]
        share = devices[slot * self.processes_per_node : (slot + 1) * self.processes_per_node]
        if len(share) < self.processes_per_node:
            raise UsageError(
                f"{self.runs_at_once} runs at once with {self.processes_per_node} GPUs each need more than the "
                f"{len(devices)} GPUs of profile {self.name!r}",
                remedy="let fewer runs go on at once, or give each fewer processes",
            )
        return {"CUDA_VISIBLE_DEVICES": ",".join(share)}

    @property
    def walltime_minutes(self) -> int:
        """SLURM counts time limits in whole minutes."""
        return ceil(self.walltime / 60)

    def with_processes(self, processes: int | None) -> Self:
        """The profile with another number of processes of a training stage; unchanged for None.

        Raises:
            UsageError: they do not divide over the nodes, or are more than its GPUs.
        """
        if processes is None:
            return self
        if processes % self.nodes:
            raise UsageError(
                f"--processes {processes} does not divide over the {self.nodes} nodes of profile {self.name!r}",
                remedy=f"accepted: multiples of {self.nodes}",
            )
        most = len(self.gpus) or (self.gpus_per_node if self.device == "cuda" else None)
        if most and processes > most * self.nodes:
            on = f" on {self.nodes} nodes" if self.nodes > 1 else ""
            raise UsageError(
                f"--processes {processes}: profile {self.name!r} has {most * self.nodes} GPUs{on}",
                remedy=f"accepted: at most {most * self.nodes}",
            )
        return self.model_copy(update={"processes_per_node": processes // self.nodes})


def local_profile(processes: int | None = None) -> Profile:
    """This machine: one process per visible GPU, else two CPU processes (one on a single core)."""
    gpus = visible_gpus()
    return Profile.model_construct(
        name="local",
        device="cuda" if gpus else "cpu",
        processes_per_node=processes or gpus or min(2, os.cpu_count() or 1),
    )


def slurm_profile() -> Profile:
    """A SLURM cluster as it stands: its default partition, one node; before it is asked for GPUs, two CPU processes."""
    return Profile.model_construct(name="slurm", executor="slurm", processes_per_node=2, cpus_per_node=2)


def visible_gpus() -> int:
    """NVIDIA devices that a job would see, without importing torch."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [path.name for path in Path("/dev").iterdir()]
    present = sum(name.startswith("nvidia") and name[6:].isdigit() for name in names)
    if allowed is None:
        return present
    return min(present, len([d for d in allowed.split(",") if d.strip() not in ("", "-1")]))
