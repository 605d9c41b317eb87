"""`pdforge run`: carry out recipes here, in the foreground."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from pdforge.cli.options import (
    AtOnceOption,
    ClusterOption,
    ProcessesOption,
    RootOption,
    SetOption,
    TargetsArgument,
    VariantOption,
)
from pdforge.cli.report import print_report
from pdforge.errors import ExitCode
from pdforge.layout import PRIVATE, storage_root

if TYPE_CHECKING:
    from rich.console import Console

    from pdforge.launch.work import StopSwitch
    from pdforge.plan.model import Plan

RetryOption = Annotated[
    bool, typer.Option("--retry", help="Start a stage again although its last starts failed without gaining a step.")
]


def run_command(
    targets: TargetsArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
    at_once: AtOnceOption = None,
    retry: RetryOption = False,
) -> None:
    """Run recipes here, in the foreground: every stage that is not done yet, then the table of results.

    A run that fails stops no other. With `--at-once N`, N runs of a sweep go on together and share this machine.
    Ctrl-C asks the stages to save and end; Ctrl-C again kills them. The same command goes on where they ended.
    Exit code 75: stopped on request.

    Example: `pdforge run quickstart --variant pd --set training.tokens=1M`
    """
    from rich.console import Console  # noqa: PLC0415 - keeps `--help` quick

    from pdforge.launch.find import find_targets, root_of  # noqa: PLC0415
    from pdforge.plan.runnable import require_runnable  # noqa: PLC0415

    os.umask(PRIVATE)
    storage = root_of(targets, root, cluster)
    plans = find_targets(
        targets,
        storage,
        variants=variant or (),
        overrides=overrides or (),
        cluster=cluster,
        processes=processes,
    )
    plans = [plan.with_runs_at_once(at_once) for plan in plans]
    require_runnable(plans)
    # with overrides a run's directory says the same in one word
    selection = [str(storage / plan.directory) for plan in plans] if overrides else [*targets]
    if not overrides:
        selection += [part for name in variant or () for part in ("--variant", name)]
        selection += [] if cluster == "local" else ["--cluster", cluster]
        selection += [] if processes is None else ["--processes", str(processes)]
    selection += [] if storage == storage_root() else ["--root", str(storage)]
    again = [] if at_once is None else ["--at-once", str(at_once)]
    _run(plans, storage, Console(), shlex.join(selection), shlex.join([*selection, *again]), retry=retry)


def _run(plans: list[Plan], root: Path, console: Console, selection: str, again: str, *, retry: bool) -> None:
    from pdforge.launch.display import Display  # noqa: PLC0415 - as above
    from pdforge.launch.drive import Drive  # noqa: PLC0415
    from pdforge.launch.status import StageStatus  # noqa: PLC0415
    from pdforge.launch.work import StopRequested, StopSwitch  # noqa: PLC0415
    from pdforge.plan.model import merged_stages  # noqa: PLC0415

    stop, announced = StopSwitch(), 0
    display = Display(console, merged_stages(plans))

    def on_event(status: StageStatus) -> None:
        nonlocal announced
        if stop.level > announced:  # said here and not in the handler, which may have interrupted a print
            announced = stop.level
            display.note("Stopping: what runs saves and ends. Ctrl-C again kills it." if announced == 1 else "Killing.")
        display.update(status)

    _catch_signals(stop)
    try:
        with display.showing():
            Drive(plans, root, on_event, stop, retry=retry).run()
    except StopRequested as stopped:
        console.print(f"\n{stopped}.", markup=False)
        _print_commands(console, {"go on": f"run {again}", "look": f"status {selection}"})
        raise typer.Exit(ExitCode.STOPPED) from stopped
    console.print()
    print_report(plans, root, console)
    _print_commands(console, {"results again": f"report {selection}", "what ran": f"status {selection}"})


def _catch_signals(stop: StopSwitch) -> None:
    """Have Ctrl-C and SIGTERM press the switch, for the rest of this process's life."""

    def press(_number: int, _frame: FrameType | None) -> None:
        stop.press()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, press)


def _print_commands(console: Console, commands: dict[str, str]) -> None:
    """The exact commands to come back with."""
    console.print()
    width = max(len(what) for what in commands)
    for what, command in commands.items():
        console.print(f"  {what:{width}}  pdforge {command}", markup=False, highlight=False, soft_wrap=True)
