"""`pdforge clusters`: the cluster profiles, whether they work, and nodes that failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdforge.cli.options import JsonOption, RootOption
from pdforge.errors import ExitCode
from pdforge.text import moment

if TYPE_CHECKING:
    from pdforge.plan.profile import Profile

clusters_command = typer.Typer(
    help="Cluster profiles: list them, show one, check one; nodes that failed.", no_args_is_help=True
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A profile: built in, or of a `clusters.yaml`.")]


NodesArgument = Annotated[list[str], typer.Argument(metavar="NODE...", help="Names of nodes, as SLURM has them.")]


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


@clusters_command.command("nodes")
def nodes_command(name: NameArgument, *, root: RootOption = None, as_json: JsonOption = False) -> None:
    """List the nodes that failed under runs below the storage root, and those that jobs avoid now.

    Example: `pdforge clusters nodes slurm`
    """
    import time  # noqa: PLC0415 - as above

    from pdforge.launch.exclusion import describe, exclusions, read_failures  # noqa: PLC0415
    from pdforge.plan.clusters import find_profile  # noqa: PLC0415

    profile = find_profile(name)
    storage, cluster = _where(profile, root)
    failures = read_failures(storage, cluster)
    avoided = exclusions(failures, profile, time.time())
    if as_json:
        rows = [{"node": one.node, "until": one.until, "failures": len(one.failures)} for one in avoided]
        page = {"cluster": cluster, "avoided": rows, "failures": [one.model_dump(mode="json") for one in failures]}
        typer.echo(json.dumps(page, indent=1, ensure_ascii=False))
        return
    for one in avoided:
        typer.echo(f"{one.node}: avoided until {moment(one.until)}, {describe(one)}")
    if not avoided:
        typer.echo(f"no node of {cluster} is avoided")
    for failure in failures:
        lifted = f"  (lifted by {failure.lifted})" if failure.lifted else ""
        typer.echo(f"  {moment(failure.time)}  {failure.node}  {failure.cause}{lifted}: {failure.evidence}")
        typer.echo(f"  {'':16}  attempt {failure.attempt} of {failure.stage}")
    if avoided:
        typer.echo(f"\n  to use one again  pdforge clusters lift {name} {avoided[0].node}")


@clusters_command.command("lift")
def lift_command(name: NameArgument, nodes: NodesArgument, *, root: RootOption = None) -> None:
    """Say that nodes are well: the failures on record count no more. For jobs that start, or start again, from now on.

    Example: `pdforge clusters lift slurm n17`
    """
    from pdforge.errors import UsageError  # noqa: PLC0415 - as above
    from pdforge.launch.exclusion import lift  # noqa: PLC0415
    from pdforge.plan.clusters import find_profile  # noqa: PLC0415

    storage, cluster = _where(find_profile(name), root)
    lifted = lift(storage, cluster, nodes)
    if unknown := [node for node in nodes if node not in lifted]:
        raise UsageError(
            f"nothing is held against {', '.join(unknown)}", remedy=f"`pdforge clusters nodes {name}` lists the nodes"
        )
    typer.echo(f"used again: {', '.join(lifted)}")


def _where(profile: Profile, root: Path | None) -> tuple[Path, str]:
    """The storage root of the profile, and SLURM's name of the cluster."""
    from pdforge.errors import EnvironmentFault, UsageError  # noqa: PLC0415 - as above
    from pdforge.launch.scheduler import cluster_name  # noqa: PLC0415
    from pdforge.layout import storage_root  # noqa: PLC0415

    if profile.executor != "slurm":
        raise UsageError(f"profile {profile.name!r} is none of SLURM", remedy="its processes run on this machine")
    cluster = cluster_name()
    if cluster is None:
        raise EnvironmentFault("SLURM cannot be asked for its name", remedy="log in to a machine of the cluster")
    return storage_root(root, profile.root), cluster
