"""`pdforge compile`: write the job directories of a recipe's stages, for reading or for running by hand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pdforge.cli.options import ClusterOption, ProcessesOption, RecipeArgument, RootOption, SetOption, VariantOption
from pdforge.layout import StageDirectory

OutOption = Annotated[
    str | None,
    typer.Option("--out", "-o", metavar="DIR", help="Write below this directory instead of the storage root."),
]


def compile_command(
    recipe: RecipeArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    out: OutOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
) -> None:
    """Write the job directory of every stage, and start nothing.

    Stages that are done are left as they are. With --out, the jobs are complete below that directory: it is
    their storage root. Example: `pdforge compile quickstart --out /tmp/jobs`
    """
    from pdforge.compile import write_stage  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.launch.find import root_of  # noqa: PLC0415
    from pdforge.plan.build import make_plans  # noqa: PLC0415
    from pdforge.plan.clusters import find_profile  # noqa: PLC0415
    from pdforge.plan.model import merged_stages  # noqa: PLC0415
    from pdforge.recipe.load import load_recipes  # noqa: PLC0415

    storage = root_of([], Path(out) if out else root, cluster)
    loaded = load_recipes(recipe, variants=variant or (), overrides=overrides or ())
    plans = make_plans(loaded, find_profile(cluster, processes), storage)
    open_stages = []
    for stage in merged_stages(plans):
        directory = StageDirectory(storage / stage.directory)
        if directory.done.exists():
            typer.echo(f"{stage.title:<20} {directory.job} (done, left as it is)")
        else:
            open_stages.append(write_stage(stage, storage))
            typer.echo(f"{stage.title:<20} {directory.job}")
    if open_stages:
        typer.echo("\nTo run them by hand, one after another in this order:")
        typer.echo(f"  bash {shlex.quote(str(open_stages[0].launch_script))}")
