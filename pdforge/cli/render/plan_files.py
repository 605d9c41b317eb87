"""The page of a plan as Markdown and as one HTML file, through templates: neither has scripts, nor needs a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pdforge.cli.render.form import Form
from pdforge.cli.render.plan_forms import content
from pdforge.cli.render.plan_text import plot
from pdforge.cli.render.sections import Drawn
from pdforge.compile.templates import render
from pdforge.plan.page import PlanPage

if TYPE_CHECKING:
    from pdforge.launch.deep import Looked

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 480, 110, 48, 10, 90


def to_file(form: Form, pages: Sequence[PlanPage], looked: Sequence[Looked] = ()) -> str:
    """The whole text of a page, or of several side by side."""
    title, heading, sections = content(pages, looked)
    findings = list(dict.fromkeys(finding for page in pages for finding in page.findings))
    draw = _in_text if form is Form.MARKDOWN else _in_svg
    values = {
        "title": title,
        "heading": list(heading),
        "sections": [
            {
                "title": section.title,
                "lines": section.lines,
                "table": section.table,
                "drawn": [draw(each) for each in section.drawn],
                "notes": section.notes,
                "warnings": section.warnings,
            }
            for section in sections
        ],
        "findings": findings,
    }
    if form is Form.MARKDOWN:
        return render("plan.md.j2", "markdown", values)
    return render("plan.html.j2", "html", values)


def _in_text(drawn: Drawn) -> dict[str, Any]:
    moves = len(set(drawn.curve.values)) > 1
    return {"label": drawn.label, "words": drawn.words, "plot": plot(drawn.curve) if moves else []}


def _in_svg(drawn: Drawn) -> dict[str, Any]:
    curve = drawn.curve
    if not curve.steps:
        return {"label": drawn.label, "words": drawn.words, "points": ""}
    top, last = max(curve.values) or 1.0, max(2, curve.steps[-1])

    def place(step: int, value: float) -> tuple[float, float]:
        across = _LEFT + (_WIDTH - _LEFT - 4) * (step - 1) / (last - 1)
        return round(across, 1), round(_BOTTOM - (_BOTTOM - _TOP) * value / top, 1)

    return {
        "label": drawn.label,
        "words": drawn.words,
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _WIDTH - 4,
        "top": _TOP,
        "bottom": _BOTTOM,
        "largest": f"{top:.3g}",
        "last": f"{curve.steps[-1]:,}",
        "points": " ".join(
            "{},{}".format(*place(step, value)) for step, value in zip(curve.steps, curve.values, strict=True)
        ),
        "marks": [
            dict(zip("xy", place(step, value), strict=True)) | {"words": f"{value:.3g} at step {step:,}"}
            for step, value in curve.keys
        ],
    }
