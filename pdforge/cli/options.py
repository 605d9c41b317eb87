"""Arguments and options that several commands share: one spelling, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pdforge.layout import ROOT_VARIABLE

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a gallery recipe such as `quickstart`.")
]

TargetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="RECIPE|RUN...", help="Recipes, run directories, or names of runs below the root."),
]

TargetArgument = Annotated[
    str, typer.Argument(metavar="RECIPE|RUN", help="A recipe, a run directory, or the name of a run below the root.")
]

VariantOption = Annotated[
    list[str] | None,
    typer.Option(
        "--variant", "-v", metavar="NAME", help="Only this variant; may be given several times. Default: all."
    ),
]
"""Default None; pass `variants or ()` to `load_recipes`."""

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="FIELD=VALUE",
        help="Set a field, such as `objective.temperature=2`; the value is YAML. May be given several times.",
    ),
]
"""Default None; pass `overrides or ()` to `load_recipes`."""

RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", envvar=ROOT_VARIABLE, metavar="DIR", help="Storage root. Default: the profile's, else ./runs."
    ),
]
"""Default None; `pdforge.launch.find.root_of` resolves it."""

ClusterOption = Annotated[
    str, typer.Option("--cluster", "-c", metavar="NAME", help="The cluster profile: where the stages run.")
]
"""Default "local"."""

ClusterRootOption = Annotated[
    str, typer.Option("--cluster", "-c", metavar="NAME", help="The cluster profile whose storage root is meant.")
]
"""Default "local"; of commands that need nothing else of a profile."""

ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes", "-n", min=1, metavar="N", help="Processes of a training stage, instead of the profile's."
    ),
]
"""Default None: as the profile says."""

AtOnceOption = Annotated[
    int | None,
    typer.Option(
        "--at-once",
        min=1,
        metavar="N",
        help="Runs that may train at one time, instead of what the profile says.",
    ),
]
"""Default None: as the plan's profile says."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
"""Default False."""
