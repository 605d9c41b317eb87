"""`pdforge tune`: how a recipe's trainings are best spread over a cluster's devices."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pdforge.cli.options import (
    ClusterOption,
    JsonOption,
    ProcessesOption,
    RecipeArgument,
    RootOption,
    SetOption,
    VariantOption,
)
from pdforge.cli.quick import importing
from pdforge.errors import ExitCode
from pdforge.layout import storage_root

DeepOption = Annotated[
    bool, typer.Option("--deep", help="Also build the first proposals at their real size on this CPU (torch).")
]
MostOption = Annotated[int, typer.Option("--most", min=1, metavar="N", help="Proposals for each training.")]


def tune_command(
    recipe: RecipeArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
    most: MostOption = 5,
    deep: DeepOption = False,
    as_json: JsonOption = False,
) -> None:
    """Propose parallelism, micro batch, loss chunks and activation checkpointing for a cluster.

    Of all settings that obey the rules and fit the GPUs' memory, those with the best estimated step time, by the
    arithmetic of `plan` (docs/plan.md). Results never change: a run has the same identity with each of them. Nothing is
    written: apply a proposal with its `--set` words, or write them into the recipe. Where the cluster does not divide
    the recipe's batches, the search begins with micro batches of 1.

    Exits with 1 where a training fits with none, or `--deep` finds something wrong.

    ```
    pdforge tune pd_star --cluster h100
    pdforge tune pd_star --cluster h100 --variant 6.8b --deep
    ```
    """
    with importing():
        from pdforge.cli import tuning  # noqa: PLC0415 - keeps `--help` quick
    profile = tuning.find_profile(cluster, processes)
    storage = storage_root(root, profile.root)
    asked = tuning.Asked(recipe, tuple(overrides or ()), profile, storage, cluster, processes, root)
    asked = tuning.plannable(asked, variant or [])
    found = tuning.tune_recipe(asked, variant or [], most=most, deep=deep)
    sys.stdout.write(tuning.to_json(found) if as_json else tuning.to_text(found, asked))
    if any(not each.tuned.best or each.faults for each in found):
        raise typer.Exit(ExitCode.FINDINGS)
