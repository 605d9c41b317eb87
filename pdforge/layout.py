"""Names of everything below a storage root. No other module spells these names."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pdforge.errors import UsageError

DEFAULT_ROOT = "runs"
ROOT_VARIABLE = "PDFORGE_ROOT"

PRIVATE = 0o077
"""The umask of every process that writes below a root: runs are their owner's."""

TOKENS, TEACHERS, LOGITS = "tokens", "teachers", "logits"
"""Folders of the stages that several runs share, below the root; one stage directory per identity in each."""
NODES = "nodes"
"""Folder of what is known of failed nodes, below the root; one file a SLURM cluster."""
TOKENIZER_FILE = "tokenizer.json"
"""Of a token store, beside its shards."""
HUGGINGFACE = "huggingface"
"""The exported model, below its stage's output."""
TRAIN, FINETUNE, EXPORT, EVALUATE = "train", "finetune", "export", "evaluate"
"""Stage directories of a run that no other shares, below it; of the last two any number, `export-<dtype>` and
`evaluate-<identity>`. What is made of the student as it was at a step ends in `-at-<step>`."""


def storage_root(option: str | Path | None = None, profile: str | None = None) -> Path:
    """The storage root: the option, else $PDFORGE_ROOT, else what the cluster profile says, else ./runs; absolute.

    Raises:
        UsageError: it is in a home directory that nobody knows.
    """
    root = Path(option or os.environ.get(ROOT_VARIABLE) or profile or DEFAULT_ROOT)
    try:
        return root.expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(
            f"storage root {root}: there is no home directory {root.parts[0]}", remedy="write its path without `~`"
        ) from error


def require_folder(root: Path) -> None:
    """A storage root need not be there yet, but nothing else may stand in its place.

    Raises:
        UsageError: something does.
    """
    there = next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir():
        raise UsageError(
            f"the storage root {root} cannot be: {there} is no folder",
            remedy="--root, --cluster or $PDFORGE_ROOT says where the runs are",
        )


class StageDirectory(NamedTuple):
    """The directory of one stage, shared or of a run."""

    path: Path

    @property
    def root(self) -> Path:
        """The storage root: every stage directory lies in a folder below it."""
        return self.path.parent.parent

    @property
    def job(self) -> Path:
        """What the compiler wrote: the only thing that a job reads for configuration."""
        return self.path / "job"

    @property
    def job_json(self) -> Path:
        """The typed job (`pdforge.plan.jobs`)."""
        return self.job / "job.json"

    @property
    def train_module(self) -> Path:
        """The compiled torchtitan configuration of a training stage."""
        return self.job / "train.py"

    @property
    def launch_script(self) -> Path:
        """Runs the stage by hand, without the CLI."""
        return self.job / "launch.sh"

    @property
    def attempts(self) -> Path:
        """One directory per start."""
        return self.path / "attempts"

    @property
    def output(self) -> Path:
        """The store, or what a training stage leaves."""
        return self.path / "output"

    @property
    def checkpoints(self) -> Path:
        """torchtitan's checkpoint folder of a training stage."""
        return self.output / "checkpoint"

    @property
    def distributions(self) -> Path:
        """What a teacher in training saw of its distributions (`pdforge.store.segments`)."""
        return self.output / "distributions"

    @property
    def whole_checkpoints(self) -> list[int]:
        """Steps of the checkpoints of a training stage that are whole, rising."""
        return checkpoint_steps(self.checkpoints, whole=True)

    def checkpoint(self, step: int) -> Path:
        """The checkpoint of a step of a training stage."""
        return self.checkpoints / f"step-{step}"

    @property
    def extended(self) -> Path:
        """Which shorter run's checkpoint the training went on from, if it did."""
        return self.path / "extended.json"

    @property
    def progress(self) -> Path:
        """How far the running attempt is."""
        return self.path / "progress.json"

    @property
    def metrics(self) -> Path:
        """One JSON row a logged training step."""
        return self.path / "metrics.jsonl"

    @property
    def done(self) -> Path:
        """Present when, and only when, the stage succeeded; holds its results."""
        return self.path / "done.json"

    @property
    def done_aside(self) -> Path:
        """The same of a stage that is being deleted."""
        return self.path / "done.json.deleted"

    @property
    def lock(self) -> Path:
        """Locked (flock) while an attempt runs."""
        return self.path / "lock"

    @property
    def submissions(self) -> Path:
        """`0001.json`, …: the jobs that a scheduler was given for the stage; the last one counts."""
        return self.path / "submissions"

    @property
    def scheduler(self) -> Path:
        """Job scripts, pickles and output of batch jobs."""
        return self.path / "scheduler"

    def attempt(self, number: int) -> AttemptDirectory:
        """The directory of the attempt of that number (from 1)."""
        return AttemptDirectory(self.attempts / f"{number:04d}")

    def all_attempts(self) -> list[AttemptDirectory]:
        """The attempts so far, oldest first."""
        if not self.attempts.is_dir():
            return []
        return [AttemptDirectory(path) for path in sorted(self.attempts.iterdir()) if path.name.isdigit()]


def checkpoint_steps(folder: Path, *, whole: bool) -> list[int]:
    """Steps of the checkpoints in torchtitan's folder, rising; `whole`: of those alone whose writing has ended."""
    found = (path.parent if whole else path for path in folder.glob("step-*/.metadata" if whole else "step-*"))
    return sorted(int(number) for path in found if (number := path.name.removeprefix("step-")).isdecimal())


class AttemptDirectory(NamedTuple):
    """What one start of a stage leaves; the launching library's own files lie beside these."""

    path: Path

    @property
    def number(self) -> int:
        """1, 2, …"""
        return int(self.path.name)

    @property
    def stage(self) -> StageDirectory:
        """The stage that it is an attempt of."""
        return StageDirectory(self.path.parent.parent)

    @property
    def record(self) -> Path:
        """How it was started: processes, rendezvous, who controls it."""
        return self.path / "attempt.json"

    @property
    def stop(self) -> Path:
        """Present when its ranks have been asked to save and end."""
        return self.path / "stop"

    @property
    def controller_log(self) -> Path:
        """What the process that keeps the ranks has to say; as a rule nothing."""
        return self.path / "controller.log"

    def rank_record(self, rank: int) -> Path:
        """State of one rank."""
        return self.path / f"rank{rank}.json"

    def sign(self, rank: int) -> Path:
        """The last sign of life of one rank."""
        return self.path / f"sign{rank}.json"

    @property
    def timeline(self) -> Path:
        """How long the start of rank 0 took, phase by phase."""
        return self.path / "timeline.json"

    def stacks(self, rank: int) -> Path:
        """Stacks of one rank that another one took, of all its threads."""
        return self.path / f"stacks{rank}.txt"

    @property
    def collectives(self) -> Path:
        """The last collectives of each rank, of an attempt that hung: torch's flight recorder, a file a rank."""
        return self.path / "collectives"

    def rank_log(self, rank: int) -> Path:
        """Standard output and error of one rank."""
        return self.path / f"rank{rank}.log"


class RunDirectory(NamedTuple):
    """The directory of one run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def plan(self) -> Path:
        """The plan (`pdforge.plan.model.Plan`)."""
        return self.path / "plan.json"

    @property
    def page(self) -> Path:
        """The figures of its plan (`pdforge.plan.page.PlanPage`) as they were when it was first started."""
        return self.path / "page.json"

    @property
    def code(self) -> Path:
        """The pdforge packages that jobs of the run were submitted with, each below the hash of its content."""
        return self.path / "code"

    @property
    def driver(self) -> Path:
        """The process that starts one stage after another, while there is one."""
        return self.path / "driver.json"

    @property
    def driver_log(self) -> Path:
        """Output of a driver that was submitted."""
        return self.path / "driver.log"

    def told(self, end: int) -> Path:
        """Present when `on_end` was called for the end of the run at that time, which is a file's, in nanoseconds."""
        return self.path / f".told-{end}"

    @property
    def postmortem(self) -> Path:
        """The bundle of `pdforge postmortem`: how its attempts failed, with what they left."""
        return self.path / "postmortem.tar.gz"


def node_failures(root: Path, cluster: str) -> Path:
    """How nodes of a SLURM cluster failed under runs below the root; a lock of the same name lies beside it."""
    return root / NODES / f"{cluster}.json"


def measured_directory(root: Path, profile: str) -> Path:
    """What finished stages have measured on a cluster profile: one small file a stage."""
    return root / "measured" / profile


def report_directory(root: Path, recipes: Iterable[str]) -> Path:
    """Where a report about the runs of these recipes goes."""
    return root / f"{'-'.join(dict.fromkeys(recipes))}-report"


def saved_plan(folder: Path) -> Path:
    """The plan that `pdforge plan --out` saves in a folder."""
    return folder / "saved-plan.json"


def last_plan(root: Path) -> Path:
    """Says which folder holds the plan that was saved last for a storage root."""
    return root / "last-plan.json"


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` so that a reader, or a crash, sees the old or the new content and nothing between."""
    import tempfile  # noqa: PLC0415 - with all that it imports: not for commands that only read

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any | None:
    """The JSON at `path`, or None where there is no such file (yet)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
