"""`pdforge plan`: what a recipe would do here, and what it takes. Starts nothing; writes only what --out asks for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

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
from pdforge.errors import ExitCode, PdforgeError

if TYPE_CHECKING:
    from pdforge.plan.model import Plan
    from pdforge.recipe.models import Corpus

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Save the plan there, to submit exactly it later.")
]

_PAGE_WIDTH = 100
"""Columns where standard output is no terminal."""


def plan_command(
    recipe: RecipeArgument,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a recipe would run here: stages, steps, batch arithmetic, sizes; what is done already.

    Where the corpus cannot be read, identities are provisional, and the exit code is 1; all else is as it will be.

    Example: `pdforge plan quickstart --set objective.temperature=2`
    """
    from pdforge.launch.find import root_of  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.plan.advice import place_advice  # noqa: PLC0415
    from pdforge.plan.build import make_plans  # noqa: PLC0415
    from pdforge.plan.clusters import find_profile  # noqa: PLC0415
    from pdforge.plan.content import written_fingerprint  # noqa: PLC0415
    from pdforge.plan.page import done_keys, print_plans  # noqa: PLC0415
    from pdforge.plan.reuse import logit_store_line  # noqa: PLC0415
    from pdforge.recipe.load import load_recipes  # noqa: PLC0415
    from pdforge.store.corpus import fingerprint  # noqa: PLC0415

    storage = root_of([], root, cluster)
    loaded = load_recipes(recipe, variants=variant or (), overrides=overrides or ())
    unread: list[PdforgeError] = []

    def fingerprint_of(corpora: Sequence[Corpus]) -> str:
        try:
            return fingerprint(corpora)
        except PdforgeError as error:
            unread.append(error)
            return written_fingerprint(corpora)

    plans = make_plans(loaded, find_profile(cluster, processes), storage, fingerprint_of=fingerprint_of)
    warnings = list(dict.fromkeys(warning for one in loaded for warning in one.warnings))
    warnings += place_advice(plans, loaded, storage)
    if out and not unread:
        _save(plans, out, SavedFrom(recipe, variant or [], overrides or [], cluster, processes, storage))
    if as_json:
        page = {
            "root": str(storage),
            "plans": [plan.model_dump(mode="json", by_alias=True) for plan in plans],
            "done": done_keys(plans, storage),
            "logit_stores": {plan.label: logit_store_line(plan, storage) for plan in plans},
            "unread": [error.message for error in unread],
            "warnings": [
                {"code": w.code, "place": str(w.place), "message": w.message, "help": w.help} for w in warnings
            ],
        }
        typer.echo(json.dumps(page, indent=1, ensure_ascii=False))
        raise typer.Exit(ExitCode.FINDINGS if unread else ExitCode.OK)
    from rich.console import Console  # noqa: PLC0415 - not needed for --json

    from pdforge.cli.render.text import print_diagnostics  # noqa: PLC0415

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PAGE_WIDTH
    print_plans(plans, storage, console)
    for error in unread:
        console.print(f"\nidentities are provisional, and nothing can run here: {error.message}", markup=False)
    if warnings:
        console.print()
        print_diagnostics(console.file, warnings)
    if out and not unread:
        console.print(f"\nsaved in {out}; submit it: pdforge submit {shlex.quote(str(out))}", markup=False)
    if unread:
        raise typer.Exit(ExitCode.FINDINGS)


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
