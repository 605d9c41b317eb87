"""`pdforge diff`: what a change of a recipe means for its runs."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pdforge.cli.options import ClusterRootOption, RootOption, SetOption, VariantOption
from pdforge.errors import ExitCode, RecipeError

if TYPE_CHECKING:
    from pdforge.review.diff import Diff

_SIDE = "A recipe file or gallery name, a file of a git revision (`main:recipes/x.yaml`), or a run."


class Format(StrEnum):
    """How the difference is printed."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


def diff_command(
    old: Annotated[str, typer.Argument(metavar="OLD", help=_SIDE)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Likewise.")],
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterRootOption = "local",
    output: Annotated[Format, typer.Option("--format", "-f", help="How the difference is printed.")] = Format.TEXT,
) -> None:
    """Compare two recipes field by field: what changes the science, what the run only, and what can be resumed.

    A field *changes the science* when the identity of a stage changes with it: another run, other results. It
    *changes the run only* when a new run would give the same results, and is *resumable* when a run that is under way
    goes on with it. Then: which stores are reused, steps, tokens and cost. `--set` applies to NEW. Corpora are taken
    by name: their files are not read.

    Exits with 0 when no result can differ, 1 when the science changes, 2 when a side cannot be read
    or is not sound.

    ```
    pdforge diff quickstart quickstart --set objective.temperature=2
    pdforge diff main:recipes/mine.yaml recipes/mine.yaml --format markdown
    ```
    """
    from pdforge.launch.find import root_of  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.review.diff import compare  # noqa: PLC0415
    from pdforge.review.sources import load_sides  # noqa: PLC0415

    try:
        storage = root_of([], root, cluster)
        sides = load_sides(old, new, root=storage, variants=variant or (), overrides=overrides or ())
        difference = compare(*sides)
    except RecipeError as error:  # 1 is taken: it says that the science changes
        from pdforge.cli.render.error import print_error  # noqa: PLC0415

        print_error(error)
        raise typer.Exit(ExitCode.COULD_NOT_RUN) from error
    sys.stdout.write(_rendered(difference, output))
    if difference.changes_science:
        raise typer.Exit(ExitCode.FINDINGS)


def _rendered(difference: Diff, output: Format) -> str:
    match output:
        case Format.TEXT:
            from pdforge.cli.render.diff_text import diff_text  # noqa: PLC0415

            return diff_text(difference)
        case Format.MARKDOWN:
            from pdforge.cli.render.diff_markdown import diff_markdown  # noqa: PLC0415

            return diff_markdown(difference)
        case Format.JSON:
            from pdforge.cli.render.diff_json import diff_json  # noqa: PLC0415

            return diff_json(difference)
