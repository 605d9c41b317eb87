"""What an attempt writes about itself: `attempt.json` and one `rank<k>.json` a rank. Readers ignore unknown keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pdforge.errors import NodeFault
from pdforge.launch.process import ProcessId
from pdforge.launch.progress import Mark
from pdforge.layout import AttemptDirectory, write_json

STALLS_AFTER_S = 1800.0
"""Of an attempt that no profile says anything of."""

HANG = "Hang"
"""`RankError.type` of an attempt that was ended because it made no progress."""

_OF_NODE = re.compile(
    r"uncorrectable (ECC|NVLink) error|fallen off the bus|GPU is lost|devices? .{0,12}busy or unavailable"
    r"|no CUDA-capable device|system not yet initialized"
    r"|stale file handle|input/output error|remote I/O error",
    re.IGNORECASE,
)
"""How CUDA and its driver, and the kernel of its file systems, call what no program does."""

RankState = Literal["running", "done", "stopped", "failed"]


class RankError(BaseModel):
    """Why a rank failed."""

    model_config = ConfigDict(frozen=True)

    type: str
    """Of the exception; empty when there was none."""
    message: str
    remedy: str = ""
    traceback: str = ""
    """Text; empty for errors that a user can act on, and of a rank that hung before its first sign of life."""
    consequence: bool = False
    """The rank ended only because another one had."""
    suspects: list[int] = []
    """Of a hang: the ranks that are the likely reason."""

    @property
    def of_node(self) -> bool:
        """Whether it is one of the node or its devices, which the program cannot have caused."""
        return not self.consequence and (self.type == NodeFault.__name__ or bool(_OF_NODE.search(self.message)))

    @property
    def of_input(self) -> bool:
        """Whether only a person can remove it: it was told without a traceback. What hung may have left none either."""
        if self.type == HANG or self.of_node:
            return False
        return bool(self.type) and not self.traceback and not self.consequence


class RankRecord(BaseModel):
    """State of one rank."""

    model_config = ConfigDict(frozen=True)

    rank: int
    process: ProcessId
    node: str = ""
    """SLURM: the name of its node, which need not be that of its host."""
    state: RankState
    exit_code: int | None = None
    error: RankError | None = None
    started: float
    """Unix seconds."""
    ended: float | None = None
    lost: bool = False
    """Somebody who can tell says that its process is gone: its attempt is over."""

    @property
    def vanished(self) -> bool:
        """It says that it runs, and does not: something killed it."""
        return self.state == "running" and (self.lost or self.process.is_alive is False)


class AttemptRecord(BaseModel):
    """How an attempt was started."""

    model_config = ConfigDict(frozen=True)

    executor: Literal["local", "slurm"]
    processes: int
    master_address: str
    master_port: int
    driver: ProcessId | None = None
    """Who started it; None: a scheduler did."""
    controller: ProcessId | None = None
    """The parent of the ranks, leader of their process group; None until it has been started."""
    high_water: int
    """The furthest step that any earlier attempt of the stage reached."""
    phase: int = 0
    """The phase of the stage in which that was."""
    started: float
    """Unix seconds."""
    stalls_after: float = STALLS_AFTER_S
    """Seconds without progress after which it is ended."""
    job: str = ""
    """SLURM: the job's id (of an array: this task's own)."""
    restart: int = 0
    """SLURM: how often the job was requeued before."""
    nodes: list[str] = []
    """SLURM: the hosts, first to last."""
    ended: float | None = None
    """SLURM: when the batch step saw its last rank end; unix seconds."""
    refused: str = ""
    """Why no work was done in it."""
    moves: bool = False
    """SLURM: no work was done because it came upon nodes to avoid; the job is requeued without them."""

    @property
    def mark(self) -> Mark:
        """How far any earlier attempt of the stage came."""
        return Mark(self.phase, self.high_water)

    @property
    def driven_elsewhere(self) -> bool:
        """Whether the process that started it lives, and may be another one than this."""
        return self.driver is not None and self.driver.is_alive is True


_Record = TypeVar("_Record", bound=BaseModel)


def read_attempt(attempt: AttemptDirectory) -> AttemptRecord | None:
    """The attempt's record; None when there is none that can be read."""
    return read_record(attempt.record, AttemptRecord)


def write_attempt(attempt: AttemptDirectory, record: AttemptRecord) -> None:
    """Write the attempt's record."""
    write_json(attempt.record, record.model_dump(mode="json"))


def read_ranks(attempt: AttemptDirectory) -> list[RankRecord]:
    """The records of the ranks that have started, in order."""
    ranks = sorted(int(path.stem.removeprefix("rank")) for path in attempt.path.glob("rank*.json"))
    records = [record for rank in ranks if (record := read_rank(attempt, rank))]
    how = read_attempt(attempt)
    if how is None or how.ended is None:
        return records
    return [record.model_copy(update={"lost": True}) for record in records]


def read_rank(attempt: AttemptDirectory, rank: int) -> RankRecord | None:
    """The record of one rank; None before it has started."""
    return read_record(attempt.rank_record(rank), RankRecord)


def write_rank(attempt: AttemptDirectory, record: RankRecord) -> None:
    """Write the record of one rank."""
    write_json(attempt.rank_record(record.rank), record.model_dump(mode="json"))


def read_record(path: Path, model: type[_Record]) -> _Record | None:
    """A record; None for none, and for one that cannot be read: what nobody can read tells nothing."""
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None
