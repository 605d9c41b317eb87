"""Finding and reading the logs of ranks."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdforge.errors import UsageError
from pdforge.launch.attempts import running_attempt
from pdforge.launch.outcome import judge
from pdforge.launch.status import State, stage_statuses
from pdforge.layout import AttemptDirectory, StageDirectory
from pdforge.plan.model import Stage

_PERIOD_S = 0.2
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Log:
    """One rank's output in one attempt."""

    attempt: AttemptDirectory
    file: Path


def busiest_stage(stages: Sequence[Stage], root: Path) -> Stage:
    """The stage that a person would ask about: the one that runs, else that failed, was stopped, or is done last.

    Raises:
        UsageError: none was ever started.
    """
    states = stage_statuses(stages, root)
    order: tuple[State, ...] = ("running", "failed", "unknown", "stopped", "done")
    for state in order:
        found = [stage for stage in stages if states[stage.key].state == state and states[stage.key].attempt]
        if found:
            return found[-1]
    raise UsageError("no stage was started yet", remedy="`pdforge run` starts them")


def find_log(stage: Stage, directory: StageDirectory, *, attempt: int | None = None, rank: int | None = None) -> Log:
    """The log of a rank (default: the first that failed, else 0) in an attempt (default: the latest).

    Raises:
        UsageError: there is no such attempt or rank.
    """
    attempts = {found.number: found for found in directory.all_attempts()}
    if not attempts:
        raise UsageError(f"`{stage.title}` was not started yet")
    chosen = attempts.get(attempt or max(attempts))
    if chosen is None:
        raise UsageError(
            f"`{stage.title}` has no attempt {attempt}", remedy=f"attempts: {', '.join(map(str, attempts))}"
        )
    if rank is None:
        rank, running = 0, running_attempt(directory)
        if running is None or running.number != chosen.number:
            outcome = judge(chosen)
            if outcome.log and outcome.rank is None:
                return Log(chosen, outcome.log)
            rank = outcome.rank or 0
    log = chosen.rank_log(rank)
    if not log.exists():
        ranks = sorted(int(path.stem.removeprefix("rank")) for path in chosen.path.glob("rank*.log"))
        raise UsageError(
            f"attempt {chosen.number} of `{stage.title}` has no log of rank {rank}",
            remedy=f"ranks: {', '.join(map(str, ranks))}" if ranks else "no rank has begun",
        )
    return Log(chosen, log)


def read_log(log: Log, *, lines: int = 0, follow: bool = False) -> Iterator[str]:
    """The text of a log, from its last `lines` on (0: from its start); with `follow` as long as its attempt runs."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a chunk may end within a character
    with log.file.open("rb") as file:
        file.seek(_start_of_last_lines(log.file, lines))
        while True:
            ended = not follow or running_attempt(log.attempt.stage) != log.attempt
            while chunk := file.read(_CHUNK):
                yield decoder.decode(chunk)
            if ended:  # looked up before the last read: nothing is missed
                return
            time.sleep(_PERIOD_S)


def _start_of_last_lines(path: Path, lines: int) -> int:
    """Offset of the last `lines` lines; 0 for 0 and for a shorter file."""
    position = path.stat().st_size
    wanted = lines
    if not lines:
        return 0
    with path.open("rb") as file:
        if position:
            file.seek(position - 1)
            wanted += file.read(1) == b"\n"  # the end of the last line starts no new one
        while position:
            length = min(_CHUNK, position)
            position -= length
            file.seek(position)
            block = file.read(length)
            end = len(block)
            while (end := block.rfind(b"\n", 0, end)) >= 0:
                wanted -= 1
                if not wanted:
                    return position + end + 1
    return 0
