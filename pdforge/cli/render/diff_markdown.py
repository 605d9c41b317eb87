"""A difference as Markdown, fit for a pull-request comment."""

from __future__ import annotations

from pdforge.cli.render import diff_words as words
from pdforge.cli.render.markdown import code, escape, table
from pdforge.review.diff import Diff, RunDiff


def diff_markdown(difference: Diff) -> str:
    """Each run: its fields, its stages, and what the change costs."""
    runs = [*map(_run, difference.runs), *(f"- {escape(line)}\n" for line in words.others(difference))]
    return "\n".join(runs)


def _run(run: RunDiff) -> str:
    if not run.fields:
        return f"### {code(run.name)}: no difference\n"
    fields = [
        (code(change.field), code(words.value(change.old)), code(words.value(change.new)), words.effect(change))
        for change in run.fields
    ]
    stages = [(words.result(change), words.fate(change), *words.figures(change)) for change in run.stages]
    return "\n".join(
        [
            f"### {code(run.name)}: {run.effect}\n",
            table(("field", "old", "new", "effect"), fields),
            table(("result", "", "steps", "tokens", "FLOPs", "on disk"), stages),
            f"{words.cost(run)[0].upper()}{words.cost(run)[1:]}.\n",
        ]
    )
