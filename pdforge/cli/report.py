"""`pdforge report`: the results of runs as a table and as loss curves."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pdforge.cli.options import JsonOption, ProcessesOption, ProfileOption, RootOption, SetOption, VariantOption
from pdforge.layout import report_directory
from pdforge.plan.model import Plan

TargetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="RECIPE|RUN...", help="Recipes, run directories, or names of runs below the root."),
]


def report_command(
    targets: TargetsArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    profile: ProfileOption = "local",
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs: held-out loss of teacher and students, and their loss curves.

    Curves are written to ROOT/<recipe>-report/. Example: `pdforge report quickstart`
    """
    from pdforge.launch.find import find_targets, root_of  # noqa: PLC0415 - keeps `--help` quick

    storage = root_of(targets, root)
    plans = find_targets(
        targets,
        storage,
        variants=variant or (),
        overrides=overrides or (),
        profile=profile,
        processes=processes,
    )
    _print(plans, storage, as_json=as_json)


def _print(plans: list[Plan], root: Path, *, as_json: bool) -> None:
    from pdforge.report.summary import captures, print_summary, summarise  # noqa: PLC0415 - as above

    files, problem = _draw(plans, root)
    if as_json:
        rows = [asdict(row) for row in summarise(plans, root)]
        stores = [asdict(capture) for capture in captures(plans, root)]
        typer.echo(json.dumps({"models": rows, "captures": stores, "curves": [str(file) for file in files]}, indent=1))
        return
    from rich.console import Console  # noqa: PLC0415 - not needed for --json

    console = Console(soft_wrap=True)
    print_summary(plans, root, console)
    if files:
        console.print("\nloss curves:", *files, highlight=False, markup=False)
    else:
        console.print(f"\nno loss curves: {problem}", highlight=False, markup=False)


def _draw(plans: list[Plan], root: Path) -> tuple[list[Path], str]:
    """The files with curves, or why there are none."""
    from pdforge.report.curves import draw_curves  # noqa: PLC0415 - as above

    try:
        files = draw_curves(plans, root, report_directory(root, [plan.name for plan in plans]))
    except ImportError:
        return [], "matplotlib is not installed (pip install matplotlib)"
    return files, "" if files else "no run has logged a step yet"
