"""`pdforge plan`: what a recipe would do here, and what it takes. Starts nothing; writes only what --out asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pdforge.cli.options import ClusterOption, JsonOption, ProcessesOption, RootOption, SetOption, VariantOption
from pdforge.cli.quick import importing
from pdforge.cli.render.form import Form

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
    with importing():
        from pdforge.cli.planning import plan_recipes  # noqa: PLC0415 - keeps `--help` quick
    code = plan_recipes(
        recipes,
        variants=variant or [],
        overrides=overrides or [],
        root=root,
        cluster=cluster,
        processes=processes,
        form=Form.JSON if as_json else form,
        out=out,
        deep=deep,
    )
    raise typer.Exit(code)
