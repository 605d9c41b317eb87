"""What `pdforge plan` does once its arguments are read: recipes to plans, to pages, to text.

Imports neither typer nor rich: `pdforge.cli.quick`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pdforge.cli.render.form import Form
from pdforge.cli.render.plan_forms import to_json, to_text
from pdforge.diagnostics import Diagnostic, Severity
from pdforge.errors import ExitCode, PdforgeError, UsageError
from pdforge.layout import storage_root
from pdforge.plan.advice import place_advice
from pdforge.plan.build import make_plans
from pdforge.plan.clusters import find_profile
from pdforge.plan.content import written_fingerprint
from pdforge.plan.make_page import findings_of, make_page
from pdforge.plan.model import Plan
from pdforge.plan.page import PlanPage
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes
from pdforge.recipe.models import Corpus
from pdforge.store.corpus_files import fingerprint
from pdforge.text import closest

if TYPE_CHECKING:
    from pdforge.launch.deep import Looked


class Planned(NamedTuple):
    """One recipe, planned."""

    plans: list[Plan]
    page: PlanPage
    findings: list[Diagnostic]
    deep: tuple[Looked, ...] = ()
    """Its trainings, built at their real size, where that was asked for."""

    @property
    def refused(self) -> bool:
        """Whether `submit` would refuse it for what was found."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)


class SavedFrom(NamedTuple):
    """How a plan was asked for."""

    recipe: str
    variants: list[str]
    overrides: list[str]
    cluster: str
    processes: int | None
    root: Path


def plan_recipes(
    recipes: Sequence[str],
    *,
    variants: list[str] | None = None,
    overrides: list[str] | None = None,
    root: Path | None = None,
    cluster: str = "local",
    processes: int | None = None,
    form: Form = Form.TEXT,
    out: Path | None = None,
    deep: bool = False,
) -> ExitCode:
    """Plan recipes and print the page, or the pages side by side.

    Args:
        recipes: files or gallery names.
        variants: only these; all where there are none.
        overrides: `FIELD=VALUE` texts.
        root: the storage root; None: as the environment or the profile says.
        cluster: name of the profile.
        processes: of a training stage, instead of the profile's.
        form: how the page is written.
        out: where the plan of one recipe is saved.
        deep: also build every training at its real size.

    Raises:
        PdforgeError: a recipe cannot be planned, or there is no such profile.
    """
    variants, overrides = variants or [], overrides or []
    if out and len(recipes) > 1:
        raise UsageError(f"--out saves the plan of one recipe, not of {len(recipes)}", remedy="name one recipe")
    profile = find_profile(cluster, processes)
    storage = storage_root(root, profile.root)
    planned = [
        plan(recipe, variants, overrides, storage, profile, lenient=len(recipes) > 1, deep=deep) for recipe in recipes
    ]
    known = [made.variant for each in planned for made in each.plans if made.variant]
    if unknown := [name for name in variants if name not in known]:
        close = closest(unknown[0], known)
        raise UsageError(
            f"no variant {unknown[0]!r} in any of the recipes",
            remedy=f"did you mean {close}?" if close else f"there are {', '.join(dict.fromkeys(known))}",
        )
    refused = any(each.page.unread or each.refused for each in planned)
    if out and not refused:
        _save(planned[0].plans, out, SavedFrom(recipes[0], variants, overrides, cluster, processes, storage))
    sys.stdout.write(written(planned, form))
    if refused:
        if out:
            sys.stderr.write(f"not saved in {out}: it could not be submitted\n")
        return ExitCode.FINDINGS
    if out and form is Form.TEXT:
        import shlex  # noqa: PLC0415 - only where a plan is saved

        sys.stdout.write(f"\nsaved in {out}; submit it: pdforge submit {shlex.quote(str(out))}\n")
    return ExitCode.OK


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


def plan(
    recipe: str, variants: list[str], overrides: list[str], root: Path, profile: Profile, *, lenient: bool, deep: bool
) -> Planned:
    """Plan one recipe; `lenient`: of the variants those that it has, or all where it has none of them; `deep`: build
    its trainings too.

    Raises:
        PdforgeError: it cannot be planned.
    """
    loaded = load_recipes(recipe, variants=() if lenient else variants, overrides=overrides)
    loaded = [one for one in loaded if one.variant in variants] or loaded if lenient else loaded
    unread: list[str] = []

    def fingerprint_of(corpora: Sequence[Corpus]) -> str:
        try:
            return fingerprint(corpora)
        except PdforgeError as error:
            unread.append(error.message)
            return written_fingerprint(corpora)

    plans = make_plans(loaded, profile, root, fingerprint_of=fingerprint_of)
    findings = list(dict.fromkeys(warning for one in loaded for warning in one.warnings))
    findings += place_advice(plans, loaded, root)
    looked: list[Looked] = []
    if deep:
        from pdforge.launch.deep import findings as deep_findings  # noqa: PLC0415 - for this option only
        from pdforge.launch.deep import look_at  # noqa: PLC0415

        looked = look_at(plans)
        found = [
            each.at(one.place(each.field))
            for made, one in zip(plans, loaded, strict=True)
            for each in deep_findings(looked, made)
        ]
        findings += [each for each in dict.fromkeys(found) if each not in findings]
    page = make_page(plans, root, findings=findings_of(findings), unread=unread)
    return Planned(plans, page, findings, tuple(looked))


def written(planned: Sequence[Planned], form: Form) -> str:
    """The pages of all, as they are printed."""
    pages = [each.page for each in planned]
    looked = [one for each in planned for one in each.deep]
    match form:
        case Form.JSON:
            return to_json([(each.plans, each.page) for each in planned], [one.figures() for one in looked])
        case Form.TEXT:
            return to_text(pages, [finding for each in planned for finding in each.findings], sys.stdout, looked)
    from pdforge.cli.render.plan_files import to_file  # noqa: PLC0415 - Jinja: for these forms only

    return to_file(form, pages, looked)
