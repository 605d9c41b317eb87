"""`pdforge report`: what runs came to, in every form."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdforge.cli.options import (
    ClusterOption,
    JsonOption,
    ProcessesOption,
    RootOption,
    SetOption,
    VariantOption,
)
from pdforge.layout import report_directory, write_atomically

if TYPE_CHECKING:
    from rich.console import Console

    from pdforge.plan.model import Plan
    from pdforge.report.compare import Comparison
    from pdforge.report.model import Results
    from pdforge.report.tables import Table


class Form(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    HTML = "html"


SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE|RUN|RESULTS...",
        help="Recipes, run directories, names of runs below the root, files that `--format json` wrote.",
    ),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        "--baseline", "-b", metavar="NAME", help="What all are compared with. Default: each recipe's run with α = 0."
    ),
]
FormOption = Annotated[Form, typer.Option("--format", "-f", help="How the report is printed.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write every form, and the curves, into this folder.")
]

PlanVsActualOption = Annotated[
    bool, typer.Option("--plan-vs-actual", help="Show what the plan expected beside what happened.")
]


def report_command(
    sources: SourcesArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
    baseline: BaselineOption = None,
    output: FormOption = Form.TEXT,
    as_json: JsonOption = False,
    out: OutOption = None,
    beside: PlanVsActualOption = False,
) -> None:
    """Compare runs: held-out loss, accuracies, differences from a baseline with their noise, and curves.

    Runs that are not finished are shown as such. Curves are written to ROOT/<recipe>-report/, or to `--out`.

    ```
    pdforge report quickstart
    pdforge report mine.yaml --baseline lm --format markdown
    pdforge report mine.yaml --out results/ && pdforge report results/report.json
    pdforge report mine.yaml elsewhere/report.json
    pdforge report RUN --plan-vs-actual
    ```
    """
    selection = {"variants": variant or (), "overrides": overrides or (), "processes": processes}
    if beside:
        _print_beside(sources, root, cluster, as_json=as_json or output is Form.JSON, **selection)
        return
    from pdforge.report.compare import Comparison  # noqa: PLC0415 - keeps `--help` quick

    results, folder, title = _read(sources, root, cluster, **selection)
    comparison = Comparison(results, baseline)
    form = Form.JSON if as_json else output
    if out is not None:
        _write_all(title, comparison, out)
    if form is Form.TEXT:
        from pdforge.report.forms.terminal import report_console  # noqa: PLC0415 - as above
        from pdforge.report.tables import tables  # noqa: PLC0415

        _print(tables(comparison), results, out or folder, report_console())
    else:
        typer.echo(_spelled(form, title, comparison, []), nl=False)


def _read(
    sources: Sequence[str], root: Path | None, cluster: str, **selection: Any
) -> tuple[Results, Path | None, str]:
    """The results, the folder that their curves go to by default, and the report's title; `selection` as
    `find_targets` has it.

    Raises:
        UsageError: variants or overrides, and nothing but files of results.
    """
    from pdforge.errors import UsageError  # noqa: PLC0415 - as above
    from pdforge.launch.find import find_targets, root_of  # noqa: PLC0415 - as above
    from pdforge.report.forms.data import read_results  # noqa: PLC0415
    from pdforge.report.gather import gather  # noqa: PLC0415
    from pdforge.report.model import merged  # noqa: PLC0415

    files, others = _apart(sources)
    parts = [read_results(Path(file)) for file in files]
    folder = None
    if not others and (selection["variants"] or selection["overrides"]):
        raise UsageError(
            f"--variant and --set say which runs of a recipe, and {', '.join(files)} holds results",
            remedy="name the recipe",
        )
    if others:
        storage = root_of(others, root, cluster)
        plans = find_targets(others, storage, cluster=cluster, **selection)
        parts.append(gather(plans, storage))
        folder = report_directory(storage, [plan.name for plan in plans])
    results = merged(parts) if len(parts) > 1 else parts[0]
    return results, folder, _title([run.recipe for run in results.runs])


def _print_beside(sources: Sequence[str], root: Path | None, cluster: str, *, as_json: bool, **selection: Any) -> None:
    """Raises UsageError for a file of results."""
    from pdforge.errors import UsageError  # noqa: PLC0415 - as above
    from pdforge.launch.find import find_targets, root_of  # noqa: PLC0415
    from pdforge.report.plan_vs_actual import plan_vs_actual, table_of, to_json  # noqa: PLC0415

    files, _ = _apart(sources)
    if files:
        raise UsageError(
            f"--plan-vs-actual wants runs, and {files[0]} is a file of results: it does not say what was expected",
            remedy="name a run of `pdforge ls`, or its recipe",
        )
    storage = root_of(sources, root, cluster)
    plans = find_targets(sources, storage, cluster=cluster, **selection)
    found = {plan.directory: plan_vs_actual(plan, storage) for plan in plans}
    if as_json:
        typer.echo(to_json(found))
        return
    for number, (run, rows) in enumerate(found.items()):
        typer.echo(("\n" if number else "") + (f"{run}\n{table_of(rows)}" if rows else f"{run}: nothing is done yet"))


def _apart(sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files of results, and recipes and runs."""
    files = [source for source in sources if source.endswith(".json")]
    return files, [source for source in sources if source not in files]


def _title(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or "no runs"


def _spelled(form: Form, title: str, comparison: Comparison, images: Sequence[str]) -> str:
    from pdforge.report.forms import data, html, markdown  # noqa: PLC0415 - as above
    from pdforge.report.tables import tables  # noqa: PLC0415

    match form:
        case Form.CSV:
            return data.to_csv(comparison)
        case Form.JSON:
            return data.to_json(comparison)
        case Form.HTML:
            return html.to_html(title, comparison, tables(comparison, every_run=True))
        case _:
            return markdown.to_markdown(title, tables(comparison, every_run=True), images)


def _write_all(title: str, comparison: Comparison, folder: Path) -> None:
    """`report.md`, `.csv`, `.json` and `.html`, and the curves."""
    curves, _ = _draw(comparison.results, folder)
    images = [file.name for file in curves if file.suffix == ".svg"]
    for form, name in ((Form.MARKDOWN, "md"), (Form.CSV, "csv"), (Form.JSON, "json"), (Form.HTML, "html")):
        write_atomically(folder / f"report.{name}", _spelled(form, title, comparison, images))


def print_report(plans: list[Plan], root: Path, console: Console) -> None:
    """The short report that `run` ends with."""
    from pdforge.report.compare import Comparison  # noqa: PLC0415 - as above
    from pdforge.report.gather import gather  # noqa: PLC0415
    from pdforge.report.tables import summary  # noqa: PLC0415

    comparison = Comparison(gather(plans, root))
    _print(summary(comparison), comparison.results, report_directory(root, [plan.name for plan in plans]), console)


def _print(tables: Sequence[Table], results: Results, folder: Path | None, console: Console) -> None:
    from pdforge.report.forms.terminal import print_tables  # noqa: PLC0415 - as above

    print_tables(tables, console)
    if folder is not None:
        files, problem = _draw(results, folder)
        curves = f"curves: {' '.join(map(str, files))}" if files else f"no curves: {problem}"
        console.print(f"\n{curves}", highlight=False, markup=False, soft_wrap=True)


def _draw(results: Results, folder: Path) -> tuple[list[Path], str]:
    """The files with curves, or why there are none."""
    from pdforge.report.curves import draw_curves  # noqa: PLC0415 - as above

    try:
        files = draw_curves(results, folder)
    except ImportError:
        return [], "matplotlib is not installed (pip install matplotlib)"
    except OSError as error:  # who only reads another's runs still gets the tables
        return [], f"{error.filename or folder}: {error.strerror}"
    return files, "" if files else "no run has logged a step yet"
