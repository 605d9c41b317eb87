"""`pdforge report`: the results of runs as a table and as loss curves."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pdforge.cli.options import (
    ClusterOption,
    JsonOption,
    ProcessesOption,
    RootOption,
    SetOption,
    TargetsArgument,
    VariantOption,
)
from pdforge.layout import report_directory
from pdforge.plan.model import Plan

if TYPE_CHECKING:
    from rich.console import Console


def report_command(
    targets: TargetsArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs: held-out loss of teacher and students, and their loss curves.

    Curves are written to ROOT/<recipe>-report/. Example: `pdforge report quickstart`
    """
    from pdforge.launch.find import find_targets, root_of  # noqa: PLC0415 - keeps `--help` quick

    storage = root_of(targets, root, cluster)
    plans = find_targets(
        targets,
        storage,
        variants=variant or (),
        overrides=overrides or (),
        cluster=cluster,
        processes=processes,
    )
    if as_json:
        _print_json(plans, storage)
    else:
        from rich.console import Console  # noqa: PLC0415 - as above

        print_report(plans, storage, Console())


def _print_json(plans: list[Plan], root: Path) -> None:
    from pdforge.report.summary import captures, summarise  # noqa: PLC0415 - as above

    files, _ = _draw(plans, root)
    rows = [asdict(row) for row in summarise(plans, root)]
    stores = [asdict(capture) for capture in captures(plans, root)]
    typer.echo(json.dumps({"models": rows, "captures": stores, "curves": [str(file) for file in files]}, indent=1))


def print_report(plans: list[Plan], root: Path, console: Console) -> None:
    """The table of results and the files with the loss curves; `run` ends with it too."""
    from pdforge.report.summary import print_summary  # noqa: PLC0415 - as above

    files, problem = _draw(plans, root)
    print_summary(plans, root, console)
    curves = f"loss curves: {' '.join(map(str, files))}" if files else f"no loss curves: {problem}"
    console.print(f"\n{curves}", highlight=False, markup=False, soft_wrap=True)


def _draw(plans: list[Plan], root: Path) -> tuple[list[Path], str]:
    """The files with curves, or why there are none."""
    from pdforge.report.curves import draw_curves  # noqa: PLC0415 - as above

    try:
        files = draw_curves(plans, root, report_directory(root, [plan.name for plan in plans]))
    except ImportError:
        return [], "matplotlib is not installed (pip install matplotlib)"
    return files, "" if files else "no run has logged a step yet"
