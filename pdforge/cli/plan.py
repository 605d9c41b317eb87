"""`pdforge plan`: what a recipe would do here, and what it takes. Starts nothing; writes only what --out asks for."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from pdforge.cli.options import ClusterOption, JsonOption, ProcessesOption, RootOption, SetOption, VariantOption
from pdforge.cli.quick import importing
from pdforge.cli.render.form import Form
from pdforge.errors import ExitCode, UsageError
from pdforge.layout import storage_root

if TYPE_CHECKING:
    from pdforge.plan.model import Plan

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Save the plan there, to submit exactly it later.")
]
RecipesArgument = Annotated[
    list[str],
    typer.Argument(metavar="RECIPE...", help="A recipe file or the name of a gallery recipe; several: side by side."),
]


DeepOption = Annotated[
    bool,
    typer.Option(
        "--deep", help="Also build every training at its real size on this CPU, and trace its memory (torch)."
    ),
]
FormOption = Annotated[Form, typer.Option("--format", "-f", help="How to write the page.")]


def plan_command(
    recipes: RecipesArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
    form: FormOption = Form.TEXT,
    out: OutOption = None,
    deep: DeepOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a recipe would run here: stages, steps, batch arithmetic, sizes, time; what is done already.

    Where the corpus cannot be read, identities are provisional, and the exit code is 1; all else is as it will be.
    Also 1: a finding is an error, and `submit` would refuse.

    ```
    pdforge plan quickstart --set objective.temperature=2
    pdforge plan pd_star --cluster h100 --format html > plan.html
    pdforge plan pd_star --cluster h100 --deep               # builds the real jobs; a minute each
    pdforge plan vanilla pd_star --variant 1.9b              # side by side
    ```
    """
    if out and len(recipes) > 1:
        raise UsageError(f"--out saves the plan of one recipe, not of {len(recipes)}", remedy="name one recipe")
    with importing():
        from pdforge.cli import planning  # noqa: PLC0415 - keeps `--help` quick
    profile = planning.find_profile(cluster, processes)
    storage = storage_root(root, profile.root)
    planned = [
        planning.plan(recipe, variant or [], overrides or [], storage, profile, lenient=len(recipes) > 1, deep=deep)
        for recipe in recipes
    ]
    refused = any(each.page.unread or each.refused for each in planned)
    if out and not refused:
        _save(planned[0].plans, out, SavedFrom(recipes[0], variant or [], overrides or [], cluster, processes, storage))
    sys.stdout.write(planning.written(planned, Form.JSON if as_json else form))
    if refused:
        if out:
            typer.echo(f"not saved in {out}: it could not be submitted", err=True)
        raise typer.Exit(ExitCode.FINDINGS)
    if out and not as_json and form is Form.TEXT:
        typer.echo(f"\nsaved in {out}; submit it: pdforge submit {shlex.quote(str(out))}")


class SavedFrom(NamedTuple):
    """How a plan was asked for."""

    recipe: str
    variants: list[str]
    overrides: list[str]
    cluster: str
    processes: int | None
    root: Path


def _save(plans: list[Plan], out: Path, asked: SavedFrom) -> None:
    from pdforge.launch.saved import SavedPlan, code_now, save  # noqa: PLC0415 - only where a plan is saved

    file = Path(asked.recipe)
    save(
        SavedPlan(
            recipe=str(file.absolute()) if file.is_file() else asked.recipe,
            variants=asked.variants,
            overrides=asked.overrides,
            cluster=asked.cluster,
            processes=asked.processes,
            root=str(asked.root),
            code=code_now(),
            plans=plans,
        ),
        out,
    )
