"""One page of a plan, or several side by side: for people, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from pdforge.cli.render.plan_compare import compare
from pdforge.cli.render.plan_text import page_text
from pdforge.cli.render.plan_words import heading, sections, summary
from pdforge.cli.render.sections import Section
from pdforge.cli.render.text import Paint, format_diagnostics
from pdforge.diagnostics import Diagnostic
from pdforge.plan.model import Plan
from pdforge.plan.page import PlanPage

if TYPE_CHECKING:
    from pdforge.launch.deep import Looked

_PAGE_WIDTH = 100
"""Columns, at least: tables are laid out for so many."""


def content(pages: Sequence[PlanPage], looked: Sequence[Looked] = ()) -> tuple[str, tuple[str, ...], list[Section]]:
    """Title, heading and sections of one page, or of a comparison; `looked`: what `--deep` found."""
    deep: Sequence[Section] = ()
    if looked:
        from pdforge.cli.render.plan_deep import deep_check  # noqa: PLC0415 - as rarely as it is asked for

        deep = deep_check(looked)
    if len(pages) == 1:
        return summary(pages[0]), heading(pages[0]), [*sections(pages[0]), *deep]
    names = " and ".join(page.name for page in pages)
    return names, heading(pages[0])[-1:], [compare(pages), *deep]


def to_text(
    pages: Sequence[PlanPage], findings: Sequence[Diagnostic], stream: IO[str], looked: Sequence[Looked] = ()
) -> str:
    """For people, fit for the stream that it will be written to."""
    width = _PAGE_WIDTH
    if stream.isatty():
        import shutil  # noqa: PLC0415 - not for a page in a pipe

        width = shutil.get_terminal_size((_PAGE_WIDTH, 24)).columns
    text = page_text(*content(pages, looked), Paint.of(stream), max(_PAGE_WIDTH, width))
    if not findings:
        return text
    codes = dict.fromkeys(finding.code for finding in findings)
    shown = format_diagnostics(dict.fromkeys(findings), Paint.of(stream))
    return f"{text}\n{shown}why, with evidence: pdforge explain {' '.join(codes)}\n"


def to_json(planned: Sequence[tuple[Sequence[Plan], PlanPage]], deep: Sequence[dict[str, object]] = ()) -> str:
    """The plans as they would be saved, every figure of their pages, and what `--deep` found."""
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
        "deep": list(deep),
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
