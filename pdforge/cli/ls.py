"""`pdforge ls`: the runs below a storage root."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import typer

from pdforge.cli.options import ClusterRootOption, JsonOption, RootOption
from pdforge.text import moment

if TYPE_CHECKING:
    from pdforge.launch.status import RunStatus


def ls_command(root: RootOption = None, *, cluster: ClusterRootOption = "local", as_json: JsonOption = False) -> None:
    """List all runs below the storage root, with their states.

    Example: `pdforge ls --root /scratch/runs`
    """
    from pdforge.launch.find import readable_plans, root_of  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.launch.status import run_statuses  # noqa: PLC0415

    storage = root_of([], root, cluster)
    runs = run_statuses(readable_plans(storage, warn=partial(typer.echo, err=True)), storage)
    if as_json:
        typer.echo(json.dumps({"root": str(storage), "runs": [_row(run) for run in runs]}, indent=1))
    elif not runs:
        typer.echo(f"no runs below {storage}")
    else:
        _print(runs)


def _row(run: RunStatus) -> dict[str, object]:
    return {
        "run": run.path.name,
        "name": run.name,
        "variant": run.variant,
        "state": run.state,
        "stages": len(run.stages),
        "done": _done(run),
        "started": run.started,
    }


def _done(run: RunStatus) -> int:
    return sum(stage.state == "done" for stage in run.stages)


def _print(runs: list[RunStatus]) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from pdforge.launch.display import STYLES  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "state", "stages done", "last started"):
        table.add_column(column)
    for run in runs:
        started = moment(run.started or 0)
        state = Text(run.state, style=STYLES[run.state])
        table.add_row(Text(run.path.name), state, f"{_done(run)} of {len(run.stages)}", started)
    Console(highlight=False, soft_wrap=True).print(table)
