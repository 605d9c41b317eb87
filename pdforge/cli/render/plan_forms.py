"""One page of a plan, or several side by side, in each of the four forms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from pdforge.cli.render.plan_compare import compare
from pdforge.cli.render.plan_words import heading, sections, summary
from pdforge.cli.render.sections import Section
from pdforge.diagnostics import Diagnostic
from pdforge.plan.model import Plan
from pdforge.plan.page import PlanPage

_PAGE_WIDTH = 100
"""Columns where standard output is no terminal."""


def _content(pages: Sequence[PlanPage]) -> tuple[str, tuple[str, ...], list[Section]]:
    if len(pages) == 1:
        return summary(pages[0]), heading(pages[0]), sections(pages[0])
    names = " and ".join(page.name for page in pages)
    return names, heading(pages[0])[-1:], [compare(pages)]


def print_page(pages: Sequence[PlanPage], findings: Sequence[Diagnostic]) -> None:
    """On standard output, for people."""
    from rich.console import Console  # noqa: PLC0415 - for this form only

    from pdforge.cli.render.plan_text import print_sections  # noqa: PLC0415
    from pdforge.cli.render.text import print_diagnostics  # noqa: PLC0415

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _PAGE_WIDTH
    print_sections(*_content(pages), console)
    if findings:
        console.print()
        print_diagnostics(console.file, findings)
        codes = dict.fromkeys(finding.code for finding in findings)
        console.print(f"why, with evidence: pdforge explain {' '.join(codes)}")


def written(form: Literal["markdown", "html"], pages: Sequence[PlanPage]) -> str:
    """As a file."""
    from pdforge.cli.render.plan_files import to_file  # noqa: PLC0415 - Jinja: for these forms only

    return to_file(form, *_content(pages), [finding for page in pages for finding in page.findings])


def to_json(planned: Sequence[tuple[Sequence[Plan], PlanPage]]) -> str:
    """The plans as they would be saved, and every figure of their pages."""
    plans = [plan for plans, _ in planned for plan in plans]
    pages = [page for _, page in planned]
    value = {
        "root": pages[0].root,
        "plans": [plan.model_dump(mode="json", by_alias=True) for plan in plans],
        "done": [step.key for page in pages for step in page.stages if step.done],
        "logit_stores": {run.label: run.logits for page in pages for run in page.runs},
        "unread": [reason for page in pages for reason in page.unread],
        "warnings": [
            {"code": each.code, "place": each.place, "message": each.message, "help": each.help}
            for page in pages
            for each in page.findings
        ],
        "pages": [page.to_json() for page in pages],
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
