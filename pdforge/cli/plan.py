"""`pdforge plan`: what a recipe would do here, and what it takes. Starts nothing; writes only what --out asks for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from pdforge.cli.options import ClusterOption, JsonOption, ProcessesOption, RootOption, SetOption, VariantOption
from pdforge.errors import ExitCode, PdforgeError, UsageError

if TYPE_CHECKING:
    from pdforge.diagnostics import Diagnostic
    from pdforge.plan.model import Plan
    from pdforge.plan.page import PlanPage
    from pdforge.plan.profile import Profile
    from pdforge.recipe.models import Corpus

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Save the plan there, to submit exactly it later.")
]
RecipesArgument = Annotated[
    list[str],
    typer.Argument(metavar="RECIPE...", help="A recipe file or the name of a gallery recipe; several: side by side."),
]


class Form(StrEnum):
    """How the page is written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"
    HTML = "html"


FormOption = Annotated[Form, typer.Option("--format", "-f", help="How to write the page.")]


class Planned(NamedTuple):
    """One recipe, planned."""

    plans: list[Plan]
    page: PlanPage
    findings: list[Diagnostic]


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
    as_json: JsonOption = False,
) -> None:
    """Show what a recipe would run here: stages, steps, batch arithmetic, sizes, time; what is done already.

    Where the corpus cannot be read, identities are provisional, and the exit code is 1; all else is as it will be.
    Also 1: a finding is an error, and `submit` would refuse.

    ```
    pdforge plan quickstart --set objective.temperature=2
    pdforge plan pd_star --cluster h100 --format html > plan.html
    pdforge plan vanilla pd_star --variant 1.9b              # side by side
    ```
    """
    from pdforge.diagnostics import Severity  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.launch.find import root_of  # noqa: PLC0415
    from pdforge.plan.clusters import find_profile  # noqa: PLC0415

    if out and len(recipes) > 1:
        raise UsageError(f"--out saves the plan of one recipe, not of {len(recipes)}", remedy="name one recipe")
    storage, profile = root_of([], root, cluster), find_profile(cluster, processes)
    planned = [
        _plan(recipe, variant or [], overrides or [], storage, profile, lenient=len(recipes) > 1) for recipe in recipes
    ]
    unread = any(each.page.unread for each in planned)
    refused = any(finding.severity is Severity.ERROR for each in planned for finding in each.findings)
    if out and not unread:
        _save(planned[0].plans, out, SavedFrom(recipes[0], variant or [], overrides or [], cluster, processes, storage))
    _write(planned, Form.JSON if as_json else form)
    if out and not unread and not as_json and form is Form.TEXT:
        typer.echo(f"\nsaved in {out}; submit it: pdforge submit {shlex.quote(str(out))}")
    if unread or refused:
        raise typer.Exit(ExitCode.FINDINGS)


def _plan(
    recipe: str, variants: list[str], overrides: list[str], storage: Path, profile: Profile, *, lenient: bool
) -> Planned:
    """Plan one recipe; `lenient`: of the variants those that it has, or all where it has none of them."""
    from pdforge.plan.advice import place_advice  # noqa: PLC0415 - as above
    from pdforge.plan.build import make_plans  # noqa: PLC0415
    from pdforge.plan.content import written_fingerprint  # noqa: PLC0415
    from pdforge.plan.make_page import findings_of, make_page  # noqa: PLC0415
    from pdforge.recipe.load import load_recipes  # noqa: PLC0415
    from pdforge.store.corpus import fingerprint  # noqa: PLC0415

    loaded = load_recipes(recipe, variants=() if lenient else variants, overrides=overrides)
    loaded = [one for one in loaded if one.variant in variants] or loaded if lenient else loaded
    unread: list[str] = []

    def fingerprint_of(corpora: Sequence[Corpus]) -> str:
        try:
            return fingerprint(corpora)
        except PdforgeError as error:
            unread.append(error.message)
            return written_fingerprint(corpora)

    plans = make_plans(loaded, profile, storage, fingerprint_of=fingerprint_of)
    findings = list(dict.fromkeys(warning for one in loaded for warning in one.warnings))
    findings += place_advice(plans, loaded, storage)
    page = make_page(plans, storage, findings=findings_of(findings), unread=unread)
    return Planned(plans, page, findings)


def _write(planned: list[Planned], form: Form) -> None:
    from pdforge.cli.render.plan_forms import print_page, to_json, written  # noqa: PLC0415 - as above

    if form is Form.JSON:
        sys.stdout.write(to_json([(each.plans, each.page) for each in planned]))
    elif form is Form.TEXT:
        print_page([each.page for each in planned], [finding for each in planned for finding in each.findings])
    else:
        sys.stdout.write(written("markdown" if form is Form.MARKDOWN else "html", [each.page for each in planned]))


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
