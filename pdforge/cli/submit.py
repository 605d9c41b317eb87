"""`pdforge submit`: have recipes carried out, and leave."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdforge.cli.options import (
    AtOnceOption,
    JsonOption,
    ProcessesOption,
    RootOption,
    SetOption,
    VariantOption,
)
from pdforge.cli.run import RetryOption
from pdforge.errors import ExitCode, UsageError
from pdforge.layout import PRIVATE, storage_root

if TYPE_CHECKING:
    from pdforge.launch.detach import Submitted
    from pdforge.launch.saved import SavedPlan
    from pdforge.plan.model import Plan

TargetsOrLastArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE|RUN|PLAN_DIR...",
        help="Recipes, runs, or the folder of a plan that `plan --out` saved. Default: the plan saved last.",
    ),
]
OtherClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", "-c", metavar="NAME", help="The cluster profile. Default: the plan's, else `local`."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what SLURM would get, byte for byte; submit and write nothing.")
]


def submit_command(
    targets: TargetsOrLastArgument = None,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: OtherClusterOption = None,
    processes: ProcessesOption = None,
    at_once: AtOnceOption = None,
    retry: RetryOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give recipes to a cluster, or run them here in the background. What runs already is left alone.

    Submitting again attaches to what runs, and starts only what is missing: of a sweep, the runs that lack.

    Example: `pdforge submit --cluster slurm quickstart && pdforge status quickstart --watch`
    """
    from pdforge.diagnostics import Severity  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.launch.find import find_targets, root_of  # noqa: PLC0415
    from pdforge.launch.saved import find_saved, last_saved  # noqa: PLC0415
    from pdforge.plan.advice import advice  # noqa: PLC0415
    from pdforge.plan.clusters import profile_root  # noqa: PLC0415
    from pdforge.plan.runnable import require_runnable  # noqa: PLC0415

    os.umask(PRIVATE)
    storage = root_of(targets or [], root, cluster or "local")
    if not targets:
        targets = [last_saved([storage, root_of([], root)])]
        _confirm(f"No recipe is named; the plan that was saved last is {targets[0]}.", yes=yes or dry_run)
    saved = next((found for target in targets if (found := find_saved(target))), None)
    if saved and len(targets) > 1:
        raise UsageError(
            f"{' '.join(targets)}: a saved plan is submitted by itself", remedy="one command for it, one for the others"
        )
    if saved:
        if variant or overrides:
            raise UsageError(
                f"{targets[0]} is a saved plan: what it runs was reviewed, and --variant and --set would change it",
                remedy="plan again with them: `pdforge plan RECIPE --out DIR`",
            )
        elsewhere = profile_root(cluster) if cluster and cluster != saved.cluster else None
        storage = storage_root(root, elsewhere) if root or elsewhere else Path(saved.root)
        plans = _reviewed(saved, cluster, processes, storage, yes=yes or dry_run)
    else:
        plans = find_targets(
            targets,
            storage,
            variants=variant or (),
            overrides=overrides or (),
            cluster=cluster or "local",
            processes=processes,
        )
    plans = [plan.with_runs_at_once(at_once) for plan in plans]
    require_runnable(plans)
    findings = dict.fromkeys(each for plan in plans for each in advice(plan, storage))
    for each in findings:
        typer.echo(f"{each.severity}[{each.code}]: {each.message}\n  help: {each.help}", err=True)
    if any(each.severity is Severity.ERROR for each in findings):
        raise typer.Exit(ExitCode.FINDINGS)
    if any(plan.profile.executor == "slurm" for plan in plans):
        _submit_to_slurm(plans, storage, dry_run=dry_run, as_json=as_json)
        return
    if dry_run:
        raise UsageError(
            f"profile {plans[0].profile.name!r} runs stages on this machine: SLURM would get nothing",
            remedy="name a profile of SLURM: --cluster slurm; `pdforge plan` shows what would run",
        )
    _submit_here(plans, storage, retry=retry, as_json=as_json)


def _reviewed(saved: SavedPlan, cluster: str | None, processes: int | None, root: Path, *, yes: bool) -> list[Plan]:
    """The plans of a saved plan, if the same would be planned now; for another cluster after showing what differs."""
    from pdforge.launch.find import find_targets  # noqa: PLC0415 - as above
    from pdforge.launch.saved import drift  # noqa: PLC0415

    def plan_now(root: Path, cluster: str, processes: int | None) -> list[Plan]:
        return find_targets(
            [saved.recipe],
            root,
            variants=saved.variants,
            overrides=saved.overrides,
            cluster=cluster,
            processes=processes,
        )

    if lines := drift(saved, plan_now(Path(saved.root), saved.cluster, saved.processes)):
        raise UsageError("what was planned has changed since:\n  " + "\n  ".join(lines), remedy="plan and review again")
    moved = [f"root: {saved.root} → {root}"] if str(root) != saved.root else []
    if (cluster or saved.cluster, processes or saved.processes, moved) == (saved.cluster, saved.processes, []):
        return saved.plans
    target = cluster or saved.cluster
    plans = plan_now(root, target, processes or (None if cluster else saved.processes))
    asked = f"for {target}" if target != saved.cluster else "as it is asked for now"
    lines = [*moved, *drift(saved, plans)]
    _confirm(f"Planned for {saved.cluster}; {asked} it differs:\n  " + "\n  ".join(lines), yes=yes)
    return plans


def _confirm(text: str, *, yes: bool) -> None:
    """Show what would happen; go on with --yes, or when the user says so."""
    typer.echo(text, err=True)
    if not yes and not (sys.stdin.isatty() and typer.confirm("Submit?", err=True)):
        raise UsageError("not confirmed: nothing is submitted", remedy="add --yes")


def _submit_to_slurm(plans: list[Plan], root: Path, *, dry_run: bool, as_json: bool) -> None:
    from pdforge.launch.environment import require_secrets  # noqa: PLC0415 - as above
    from pdforge.launch.exclusion import describe  # noqa: PLC0415
    from pdforge.launch.graph import dry_run as scripts  # noqa: PLC0415
    from pdforge.launch.graph import submit_graph  # noqa: PLC0415

    if dry_run:
        given = list(scripts(plans, root))
        if as_json:
            rows = [{"title": title, "command": command, "script": text} for title, command, text in given]
            typer.echo(json.dumps(rows, indent=1))
        for title, command, text in () if as_json else given:
            typer.echo(f"# {title}: {shlex.join(command)}\n{text}")
        return
    require_secrets(plans)
    stages = submit_graph(plans, root)
    runs = [root / plan.directory for plan in plans]
    if as_json:
        rows = [
            {
                "title": stage.title,
                "state": stage.state,
                "jobs": stage.jobs,
                "avoided": [exclusion.node for exclusion in stage.avoided],
            }
            for stage in stages
        ]
        typer.echo(json.dumps({"stages": rows, "runs": [str(run) for run in runs]}, indent=1))
        return
    if all(stage.state == "done" for stage in stages):
        typer.echo("Everything is done already.\n")
        _print_commands(runs, root, only=("report",))
        return
    width = max(len(stage.title) for stage in stages)
    for stage in stages:
        jobs = ", ".join(stage.jobs)
        typer.echo(f"{stage.title:{width}}  {stage.state}{f'  job {jobs}' if jobs else ''}")
    for exclusion in {one.node: one for stage in stages for one in stage.avoided}.values():
        typer.echo(f"node {exclusion.node} is avoided: {describe(exclusion)}; see `pdforge clusters nodes`")
    typer.echo("")
    _print_commands(runs, root)


def _submit_here(plans: list[Plan], root: Path, *, retry: bool, as_json: bool) -> None:
    from pdforge.launch.detach import submit  # noqa: PLC0415 - as above

    submitted = submit(plans, root, retry=retry)
    if as_json:
        _print_json(submitted)
    elif submitted.state == "done":
        typer.echo("Everything is done already.\n")
        _print_commands(submitted.runs, root, only=("report",))
    else:
        what = "Submitted" if submitted.state == "submitted" else "Runs already"
        typer.echo(f"{what}: process {submitted.pid}, its output in {submitted.log}\n")
        _print_commands(submitted.runs, root)


def _print_json(submitted: Submitted) -> None:
    page = {
        "state": submitted.state,
        "driver": submitted.pid,
        "log": str(submitted.log),
        "runs": [str(run) for run in submitted.runs],
    }
    typer.echo(json.dumps(page, indent=1))


def _print_commands(runs: list[Path], root: Path, only: tuple[str, ...] = ()) -> None:
    """The exact commands to come back with."""
    names = shlex.join(run.name for run in runs)
    where = names if root == storage_root() else f"{names} --root {shlex.quote(str(root))}"
    first = shlex.quote(str(runs[0])) if root != storage_root() else shlex.quote(runs[0].name)
    commands = {
        "watch": f"status {where} --watch",
        "logs": f"logs {first} -f",
        "stop": f"cancel {where}",
        "go on": f"resume {where}",
        "report": f"report {where}",
    }
    for what, command in commands.items():
        if not only or what in only:
            typer.echo(f"  {what:6}  pdforge {command}")
