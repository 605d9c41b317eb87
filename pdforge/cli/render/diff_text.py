"""A difference for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pdforge.cli.render import diff_words as words
from pdforge.cli.render.plain import printable
from pdforge.review.diff import Diff, RunDiff


def diff_text(difference: Diff) -> str:
    """Each run: its fields, its stages, and what the change costs."""
    return "\n".join([*map(_run, difference.runs), *(f"{printable(line)}\n" for line in words.others(difference))])


def _run(run: RunDiff) -> str:
    if not run.fields:
        return f"{run.name}: no difference\n"
    fields = [
        (change.field, f"{words.value(change.old)} → {words.value(change.new)}", words.effect(change))
        for change in run.fields
    ]
    stages = [(words.result(change), words.fate(change), *words.figures(change)) for change in run.stages]
    header = ("result", "", "steps", "tokens", "FLOPs", "on disk")
    return f"{run.name}: {run.effect}\n\n{_columns(fields)}\n{_columns([header, *stages])}\n  {words.cost(run)}\n"


def _columns(rows: Sequence[Iterable[str]]) -> str:
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "".join(f"  {line.rstrip()}\n" for line in lines)
