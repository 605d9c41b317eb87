"""`pdforge status`: how runs stand."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdforge.cli.options import ClusterOption, JsonOption, ProcessesOption, RootOption, SetOption, VariantOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pdforge.launch.status import RunStatus, StageStatus, State

_PERIOD_S = 1.0

_BY_THEMSELVES = 3
"""Runs that are shown stage by stage; more are the rows of one table."""

TargetsOrAllArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="RECIPE|RUN...", help="Recipes or runs. Default: every run below the root."),
]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Look again every second until nothing runs.")]
TimingsOption = Annotated[
    bool, typer.Option("--timings", help="What every start cost, from the request to the first new step.")
]


def status_command(
    targets: TargetsOrAllArgument = None,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
    watch: WatchOption = False,
    timings: TimingsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show how the stages of runs stand: done, running, stopped, failed, waiting, unknown. Starts nothing.

    Example: `pdforge status quickstart --watch`
    """
    from pdforge.errors import UsageError  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.launch.find import find_targets, readable_plans, root_of  # noqa: PLC0415
    from pdforge.launch.status import run_statuses  # noqa: PLC0415

    storage = root_of(targets or [], root, cluster)
    selection = {"variants": variant or (), "overrides": overrides or ()}
    if targets:
        plans = find_targets(targets, storage, cluster=cluster, processes=processes, **selection)
    elif variant or overrides:
        raise UsageError("--variant and --set say which runs of a recipe, and none is named", remedy="name the recipe")
    else:
        plans = readable_plans(storage, warn=partial(typer.echo, err=True))

    def look() -> list[RunStatus]:
        return run_statuses(plans, storage)

    if as_json:
        page = {"root": str(storage), "runs": [_to_json(run, timings=timings) for run in look()]}
        typer.echo(json.dumps(page, indent=1, ensure_ascii=False))
    elif not plans:
        typer.echo(f"no runs below {storage}")
    else:
        from rich.console import Console  # noqa: PLC0415 - not needed for --json
        from rich.live import Live  # noqa: PLC0415

        console = Console(highlight=False)
        if not watch:
            console.print(_table(looked := look()))
            if timings:
                console.print(_timings(looked))
            return
        with Live(_table(runs := look()), console=console, auto_refresh=False) as live:
            while any(run.is_active for run in runs):
                time.sleep(_PERIOD_S)
                live.update(_table(runs := look()), refresh=True)


def _table(runs: list[RunStatus]) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from pdforge.launch.display import STYLES  # noqa: PLC0415

    if len(runs) > _BY_THEMSELVES:
        return _sweep(runs)
    parts: list[RenderableType] = []
    for run in runs:
        driver = f"  driven by process {run.driver.pid}" if run.driver else ""
        parts.append(Text.assemble((run.path.name, "bold"), f"  {run.state}{driver}"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for stage in run.stages:
            state = Text(stage.state, style=STYLES[stage.state])
            table.add_row("", state, Text(stage.title), Text(_details(stage)), Text(_attempt(stage), "dim"))
        parts.append(table)
    return Group(*parts)


def _sweep(runs: list[RunStatus]) -> RenderableType:
    """One table for many runs: stages that they share once, then a row a run."""
    from collections import Counter  # noqa: PLC0415 - as above

    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from pdforge.launch.display import STYLES  # noqa: PLC0415
    from pdforge.launch.status import deciding  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("stage or run", "state", "", "attempt"):
        table.add_column(column)

    def add(name: str, state: State, stage: StageStatus) -> None:
        table.add_row(Text(name), Text(state, STYLES[state]), Text(_details(stage)), Text(_attempt(stage), "dim"))

    uses = Counter(stage.key for run in runs for stage in run.stages)
    shared = {stage.key: stage for run in runs for stage in run.stages if uses[stage.key] > 1}
    for stage in shared.values():
        add(f"{stage.title} ({uses[stage.key]} runs)", stage.state, stage)
    for run in runs:
        own = [stage for stage in run.stages if stage.key not in shared]
        add(run.variant or run.path.name, run.state, deciding(own or run.stages))
    states = Counter(run.state for run in runs)
    return Group(table, Text(f"{len(runs)} runs: {', '.join(f'{n} {state}' for state, n in states.items())}", "dim"))


def _details(stage: StageStatus) -> str:
    """What is worth saying of a stage in its state."""
    from pdforge.launch.display import describe  # noqa: PLC0415 - as above

    details = describe(stage.progress) if stage.state in ("running", "stopped") else stage.error
    if stage.jobs and stage.state in ("running", "waiting", "unknown"):
        details = f"{details}  {stage.jobs}".strip()
    if stage.state == "failed" and stage.log:
        details += f"\n{_relative(stage.log)}"
    return details


def _attempt(stage: StageStatus) -> str:
    return f"attempt {stage.attempt}" if stage.attempt > 1 else ""


def _to_json(run: RunStatus, *, timings: bool) -> dict[str, Any]:
    from pdforge.launch.timings import stage_timings  # noqa: PLC0415 - as above
    from pdforge.layout import StageDirectory  # noqa: PLC0415

    page = run.to_json()
    for stage, row in zip(run.stages, page["stages"], strict=True) if timings else ():
        row["timings"] = [timing.to_json() for timing in stage_timings(StageDirectory(stage.directory))]
    return page


def _timings(runs: list[RunStatus]) -> RenderableType:
    """A row for every start of every stage, seconds."""
    from rich.table import Table  # noqa: PLC0415 - as above

    from pdforge.launch.timings import PARTS, stage_timings  # noqa: PLC0415
    from pdforge.layout import StageDirectory  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("starts, in seconds")
    for column in ("attempt", *PARTS, "to first new step"):
        table.add_column(column, justify="right")
    for stage in {stage.key: stage for run in runs for stage in run.stages}.values():
        for timing in stage_timings(StageDirectory(stage.directory)):
            parts = [timing.seconds.get(part) for part in PARTS]
            table.add_row(stage.title, str(timing.attempt), *map(_seconds, [*parts, timing.total]))
    return table


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
