"""`pdforge doctor`: what this machine has, what is missing, how to get it."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from pdforge.cli.options import ClusterRootOption, JsonOption, RootOption
from pdforge.errors import ExitCode
from pdforge.plan.machine import Check, can_train, inspect_machine

_MARK = {"ok": "[green]ok[/]", "missing": "[bold red]missing[/]", "absent": "[dim]absent[/]"}


def doctor_command(root: RootOption = None, cluster: ClusterRootOption = "local", as_json: JsonOption = False) -> None:
    """Say whether training jobs can run on this machine, and what to do where they cannot.

    Exit code 2 when they cannot. Example: `pdforge doctor --root /scratch/runs`
    """
    from pdforge.launch.find import root_of  # noqa: PLC0415 - keeps `--help` quick

    checks = inspect_machine(root_of([], root, cluster))
    if as_json:
        typer.echo(
            json.dumps({"can_train": can_train(checks), "checks": [asdict(check) for check in checks]}, indent=1)
        )
    else:
        _print(checks)
    if not can_train(checks):
        raise typer.Exit(ExitCode.COULD_NOT_RUN)


def _print(checks: list[Check]) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        remedy = f"\n[dim]→ {escape(check.remedy)}[/]" if check.remedy else ""
        table.add_row(_MARK[check.state], check.name, escape(check.value) + remedy)
    console = Console(highlight=False)
    console.print(table)
    console.print("\nTraining jobs can run here." if can_train(checks) else "\nTraining jobs cannot run here yet.")
