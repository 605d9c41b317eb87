"""`pdforge resume`: go on with a run that was stopped or failed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pdforge.cli.options import ClusterRootOption, RootOption
from pdforge.cli.submit import submit_command

RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Run directories, or names of runs below the root.")
]


def resume_command(runs: RunsArgument, *, root: RootOption = None, cluster: ClusterRootOption = "local") -> None:
    """Submit what is missing of runs again, with the plan and the profile that they have.

    Example: `pdforge resume quickstart-pd-0123456789ab`
    """
    from pdforge.launch.find import root_of  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.plan.find import read_plan  # noqa: PLC0415

    storage = root_of(runs, root, cluster)
    for run in runs:
        read_plan(storage / Path(run).name)  # a recipe's name is no run: says so
    submit_command(runs, root=storage, retry=True)
