"""`pdforge submit`: the same as `run`, in the background."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pdforge.cli.options import (
    JsonOption,
    ProcessesOption,
    ProfileOption,
    RootOption,
    SetOption,
    TargetsArgument,
    VariantOption,
)
from pdforge.cli.run import RetryOption
from pdforge.layout import storage_root

if TYPE_CHECKING:
    from pdforge.launch.detach import Submitted


def submit_command(
    targets: TargetsArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    profile: ProfileOption = "local",
    processes: ProcessesOption = None,
    retry: RetryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run recipes here in the background: goes on when this terminal is closed. What runs already is left alone.

    Example: `pdforge submit quickstart && pdforge status quickstart --watch`
    """
    from pdforge.launch.detach import submit  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.launch.find import find_targets, root_of  # noqa: PLC0415
    from pdforge.plan.runnable import require_runnable  # noqa: PLC0415

    storage = root_of(targets, root)
    plans = find_targets(
        targets,
        storage,
        variants=variant or (),
        overrides=overrides or (),
        profile=profile,
        processes=processes,
    )
    require_runnable(plans)
    submitted = submit(plans, storage, retry=retry)
    if as_json:
        _print_json(submitted)
    else:
        _print(submitted, storage)


def _print_json(submitted: Submitted) -> None:
    import json  # noqa: PLC0415 - as above

    typer.echo(
        json.dumps(
            {
                "state": submitted.state,
                "driver": submitted.pid,
                "log": str(submitted.log),
                "runs": [str(run) for run in submitted.runs],
            },
            indent=1,
        )
    )


def _print(submitted: Submitted, root: Path) -> None:
    runs = shlex.join(run.name for run in submitted.runs)
    where = runs if root == storage_root() else f"{runs} --root {shlex.quote(str(root))}"
    if submitted.state == "done":
        typer.echo(f"Everything is done already.\n\n  pdforge report {where}")
        return
    what = "Submitted" if submitted.state == "submitted" else "Runs already"
    typer.echo(f"{what}: process {submitted.pid}, its output in {submitted.log}\n")
    typer.echo(f"  watch   pdforge status {where} --watch")
    typer.echo(f"  stop    pdforge cancel {where}")
    typer.echo(f"  report  pdforge report {where}")
