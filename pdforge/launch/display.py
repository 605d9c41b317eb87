"""What `pdforge run` shows while it works: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from pdforge.launch.progress import Progress as StageProgress
from pdforge.launch.status import StageStatus
from pdforge.plan.model import Stage
from pdforge.text import count, duration

_ALL_SHOWN = 16
"""Stages that a live table shows all; of more it shows those that are under way, or failed."""

LINE_EVERY_S = 10.0
"""Between two lines about a stage that works, where there is no terminal."""

STYLES = {
    "done": "green",
    "running": "bold cyan",
    "failed": "bold red",
    "stopped": "yellow",
    "waiting": "dim",
    "unknown": "magenta",
}


def describe(progress: StageProgress | None) -> str:
    """`120/150 steps  loss 4.210  12.3k tokens/s  42 s left`: whatever of it is known."""
    if progress is None:
        return ""
    parts = []
    if progress.of or progress.step:
        of = f"/{progress.of:,}" if progress.of else ""
        parts.append(f"{progress.step:,}{of} {progress.unit}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{count(progress.tokens_per_second)} tokens/s")
    if progress.eta_seconds is not None:
        parts.append(f"{duration(progress.eta_seconds)} left")
    if progress.message:
        parts.append(progress.message)
    return "  ".join(parts)


class Display:
    """Shows the stages of a drive; `update` is its `on_event`."""

    def __init__(self, console: Console, stages: Sequence[Stage]) -> None:
        self._console = console
        self._stages = stages
        self._told: dict[str, _Told] = {}
        """By stage: the last line printed."""
        self._live: Progress | None = None
        self._rows: dict[str, tuple[Progress, TaskID]] = {}

    @contextmanager
    def showing(self) -> Iterator[None]:
        """While the context lasts, a terminal shows the live table."""
        if not self._console.is_terminal:
            yield
            return
        columns = (_State(), TextColumn("{task.description}", markup=False), BarColumn(24), _Details())
        with Progress(*columns, console=self._console) as live:
            self._live = live
            shown = len(self._stages) <= _ALL_SHOWN
            for stage in self._stages:
                row = live.add_task(stage.title, total=1, start=False, visible=shown, status=None)
                self._rows[stage.key] = (live, row)
            yield
        self._live = None

    def update(self, status: StageStatus) -> None:
        """Show how a stage stands."""
        if self._live is not None:
            self._update_row(*self._rows[status.key], status)
        else:
            self._print_line(status)

    def note(self, text: str) -> None:
        """Say something beside the table."""
        self._console.print(text, markup=False, highlight=False)

    def _update_row(self, live: Progress, row: TaskID, status: StageStatus) -> None:
        progress = status.progress or StageProgress()
        total, completed = float(progress.of or 1), float(progress.step if progress.of else 0)
        if status.state == "done":
            completed = total
        if status.state == "running":
            live.start_task(row)
        if len(self._stages) > _ALL_SHOWN:
            live.update(row, visible=status.state != "done")
        live.update(row, total=total, completed=completed, status=status)

    def _print_line(self, status: StageStatus) -> None:
        told = self._told.get(status.key)
        details = describe(status.progress) if status.state == "running" else ""
        line = f"{status.title}: {status.state}  {details}".rstrip()
        if told and told.state == status.state and (told.line == line or time.monotonic() - told.when < LINE_EVERY_S):
            return
        self._told[status.key] = _Told(status.state, line, time.monotonic())
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Told(NamedTuple):
    state: str
    line: str
    when: float


class _State(ProgressColumn):
    def render(self, task: Task) -> Text:
        status: StageStatus | None = task.fields["status"]
        state = status.state if status else "waiting"
        return Text(f"{state:8}", style=STYLES[state])


class _Details(ProgressColumn):
    def render(self, task: Task) -> Text:
        status: StageStatus | None = task.fields["status"]
        return Text(describe(status.progress) if status and status.state in ("running", "stopped") else "")
