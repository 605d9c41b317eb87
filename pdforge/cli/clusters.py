"""`pdforge clusters`: the cluster profiles, and whether they work."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pdforge.cli.options import JsonOption, RootOption
from pdforge.errors import ExitCode

clusters_command = typer.Typer(help="Cluster profiles: list them, show one, check one.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A profile: built in, or of a `clusters.yaml`.")]


@clusters_command.command("list")
def list_command(*, as_json: JsonOption = False) -> None:
    """List the profiles that `--cluster` accepts, and where each is written.

    Example: `pdforge clusters list`
    """
    from pdforge.plan.clusters import all_profiles  # noqa: PLC0415 - keeps `--help` quick

    profiles = all_profiles()
    if as_json:
        rows = [{**profile.model_dump(mode="json"), "from": where} for profile, where in profiles.values()]
        typer.echo(json.dumps(rows, indent=1))
        return
    width = max(map(len, profiles))
    for name, (profile, where) in profiles.items():
        nodes = f"{profile.nodes} × {profile.processes_per_node}"
        typer.echo(f"{name:{width}}  {profile.executor:5}  {nodes} {profile.device.upper()} processes  {where}")


@clusters_command.command("show")
def show_command(name: NameArgument) -> None:
    """Print a profile with all defaults, as JSON.

    Example: `pdforge clusters show slurm`
    """
    from pdforge.plan.clusters import find_profile  # noqa: PLC0415 - as above

    typer.echo(json.dumps(find_profile(name).model_dump(mode="json"), indent=1))


@clusters_command.command("check")
def check_command(name: NameArgument, *, root: RootOption = None) -> None:
    """Ask the real scheduler whether it would take a job of the profile; look at paths and secrets. Submits nothing.

    Exit code 2: something is missing.

    Example: `pdforge clusters check slurm`
    """
    from pdforge.launch.check import check_profile  # noqa: PLC0415 - as above
    from pdforge.layout import storage_root  # noqa: PLC0415
    from pdforge.plan.clusters import find_profile  # noqa: PLC0415

    profile = find_profile(name)
    checks = check_profile(profile, storage_root(root, profile.root))
    width = max(len(check.name) for check in checks)
    for check in checks:
        typer.echo(f"{check.state:7}  {check.name:{width}}  {check.value}")
        if check.remedy:
            typer.echo(f"{'':7}  {'':{width}}  {check.remedy}")
    if any(check.state == "missing" for check in checks):
        raise typer.Exit(ExitCode.COULD_NOT_RUN)
