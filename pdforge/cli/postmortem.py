"""`pdforge postmortem`: what went wrong in a run, and the command to give next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pdforge.cli.options import ClusterRootOption, JsonOption, RootOption

if TYPE_CHECKING:
    from pdforge.launch.failures import FailedAttempt
    from pdforge.launch.postmortem import Postmortem, StageReport

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run directory, or the name of a run below the root.")
]


def postmortem_command(
    run: RunArgument, *, root: RootOption = None, cluster: ClusterRootOption = "local", as_json: JsonOption = False
) -> None:
    """Say what failed in a run, with the probable cause and what speaks for it, and put all of it into one file.

    Attempts that failed are told of also where the run went on by itself afterwards. Starts nothing.

    Example: `pdforge postmortem quickstart-pd-0123456789ab`
    """
    from pathlib import Path  # noqa: PLC0415 - keeps `--help` quick

    from pdforge.launch.bundle import write_bundle  # noqa: PLC0415
    from pdforge.launch.find import root_of  # noqa: PLC0415
    from pdforge.launch.postmortem import examine  # noqa: PLC0415
    from pdforge.plan.find import read_plan  # noqa: PLC0415

    storage = root_of([run], root, cluster)
    plan = read_plan(storage / Path(run).name)
    found = examine(plan, storage)
    summary = "\n".join(_lines(found))
    bundle = write_bundle(found, summary + "\n", plan, storage) if found.stages else None
    if as_json:
        page = {**found.to_json(), "bundle": str(bundle) if bundle else None}
        typer.echo(json.dumps(page, indent=1, ensure_ascii=False))
        return
    typer.echo(summary)
    if bundle:
        typer.echo(f"\nall of it: {bundle}")


def _lines(found: Postmortem) -> list[str]:
    if not found.stages:
        return [f"{found.run.name}: nothing failed"]
    lines = [found.run.name]
    for report in found.stages:
        lines += ["", *_stage(report)]
    return lines


def _stage(report: StageReport) -> list[str]:
    of = f" of {report.of:,}" if report.of else ""
    starts = f"{report.attempts} start{'' if report.attempts == 1 else 's'}"
    lines = [f"{report.title}: {report.state}; {starts}, {report.last_step:,}{of} {report.unit} done"]
    if not report.failed and report.error:
        lines.append(f"  {report.error}")
    lines += [f"  attempt {attempt.number}: {attempt.cause.kind}" for attempt in report.failed[:-1]]
    if report.failed:
        lines += [f"  {line}" for line in _attempt(report.failed[-1])]
    if report.advice:
        lines.append(f"  advice    {report.advice}")
    return lines + [f"  {'next' if n == 0 else 'then':8}  {command}" for n, command in enumerate(report.commands)]


def _attempt(attempt: FailedAttempt) -> list[str]:
    first, *more = attempt.error.splitlines() or [""]
    rank = "the attempt as a whole" if attempt.rank is None else f"rank {attempt.rank}"
    step = "" if attempt.step is None else f", last seen at step {attempt.step:,}"
    lines = [
        f"attempt {attempt.number}: {attempt.cause.kind}",
        f"evidence  {attempt.cause.evidence}",
        f"failed    {rank}{step}: {first}",
        *(f"          {line}" for line in more),
    ]
    if attempt.traceback:
        lines += ["stack", *(f"          {line}" for line in attempt.traceback.rstrip().splitlines())]
    if attempt.nodes:
        failed = f"; failed: {', '.join(attempt.failed_nodes)}" if attempt.failed_nodes else ""
        lines.append(f"nodes     {', '.join(attempt.nodes)}{failed}")
    if isinstance(attempt.sacct, dict):
        lines.append("sacct     " + ", ".join(f"{name} {value}" for name, value in attempt.sacct.items() if value))
    elif attempt.sacct:
        lines.append(f"sacct     {attempt.sacct}")
    if attempt.log:
        lines.append(f"log       {attempt.log}")
    return lines
