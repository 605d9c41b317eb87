"""What `pdforge plan` does once its options are read: recipes to plans, to pages, to text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pdforge.cli.render.form import Form
from pdforge.cli.render.plan_forms import to_json, to_text
from pdforge.diagnostics import Diagnostic, Severity
from pdforge.errors import PdforgeError
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
from pdforge.store.corpus import fingerprint

if TYPE_CHECKING:
    from pdforge.launch.deep import Looked

__all__ = ["Planned", "find_profile", "plan", "written"]


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
