"""`pdforge cancel`: stop what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from pdforge.cli.options import ClusterOption, ProcessesOption, RootOption, SetOption, TargetsArgument, VariantOption

KillOption = Annotated[bool, typer.Option("--kill", help="Kill the stages at once: they save nothing more.")]


def cancel_command(
    targets: TargetsArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
    kill: KillOption = False,
) -> None:
    """Ask the running stages of runs to save and end, whoever started them. `pdforge run` goes on from there.

    Example: `pdforge cancel quickstart`
    """
    from pdforge.launch.cancel import cancel  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.launch.find import find_targets, root_of  # noqa: PLC0415

    storage = root_of(targets, root, cluster)
    plans = find_targets(
        targets,
        storage,
        variants=variant or (),
        overrides=overrides or (),
        cluster=cluster,
        processes=processes,
    )
    cancelled = cancel(plans, storage, kill=kill)
    for title in cancelled.stages:
        typer.echo(f"{title}: {'killed' if kill else 'asked to save and end'}")
    for pid in cancelled.drivers:
        typer.echo(f"process {pid}, which started it: asked to end")
    if cancelled.jobs:
        typer.echo(f"SLURM jobs cancelled: {', '.join(cancelled.jobs)}")
    if not cancelled.stages and not cancelled.drivers and not cancelled.jobs:
        typer.echo("nothing runs")
