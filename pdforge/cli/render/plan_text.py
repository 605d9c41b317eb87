"""The page of a plan on a terminal of a hundred columns, readable without colour.

Written without rich, whose import and tables take longer than all the figures.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from textwrap import wrap

from pdforge.cli.render.plain import printable
from pdforge.cli.render.sections import Drawn, Section, Table
from pdforge.cli.render.text import Paint
from pdforge.plan.curves import Curve

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 72, 3
_INDENT = " " * 10
_BETWEEN = "  "
_NARROWEST = 12
"""Characters of a column that is broken over lines."""
_BOLD, _DIM, _GREEN, _YELLOW, _CYAN = "1", "2", "32", "33", "36"


def page_text(title: str, heading: Sequence[str], sections: Sequence[Section], paint: Paint, width: int) -> str:
    """The whole page, each line ended."""
    name, _, rest = printable(title).partition("  ")
    lines = [paint(name, _BOLD) + (f"  {rest}" if rest else "")]
    for number, line in enumerate(heading):
        style = "" if number == len(heading) - 1 else _DIM
        lines += [paint(part, style) for part in _wrapped(printable(line), width)]
    for section in sections:
        lines += ["", *_section(section, paint, width)]
    return "".join(f"{line}\n" for line in lines)


def _section(section: Section, paint: Paint, width: int) -> Iterator[str]:
    if section.table is None:
        yield paint(printable(section.title), _BOLD)
    for line in section.lines:
        yield from _wrapped(f"  {printable(line)}", width)
    if section.table is not None:
        yield from _table(section.table, paint, width)
    for drawn in section.drawn:
        yield from _drawn(drawn, paint, width)
    for note in section.notes:
        for line in _wrapped(printable(note), width):
            yield paint(line, _GREEN if note.startswith("✓") else "")
    for warning in section.warnings:
        for line in _wrapped(printable(warning), width):
            yield paint(line, _YELLOW)


def _table(table: Table, paint: Paint, width: int) -> Iterator[str]:
    rows = [[printable(cell) for cell in row.cells] for row in table.rows]
    header = [column.name for column in table.columns]
    widths = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
    for number, column in enumerate(table.columns):
        if column.wide:
            others = sum(widths) - widths[number] + len(_BETWEEN) * (len(widths) - 1)
            widths[number] = min(widths[number], max(_NARROWEST, width - others))
    yield paint(_row([[name] for name in header], table, widths)[0], _BOLD)
    for row, cells in zip(table.rows, rows, strict=True):
        style = _DIM if row.dim else _BOLD if row.strong else ""
        for line in _row([_wrapped(cell, size) for cell, size in zip(cells, widths, strict=True)], table, widths):
            yield paint(line, style)


def _row(cells: Sequence[Sequence[str]], table: Table, widths: Sequence[int]) -> list[str]:
    """The lines of a row, of which each cell has some."""
    return [
        _BETWEEN.join(
            (parts[line] if line < len(parts) else "").rjust(size)
            if column.right
            else (parts[line] if line < len(parts) else "").ljust(size)
            for parts, column, size in zip(cells, table.columns, widths, strict=True)
        ).rstrip()
        for line in range(max(map(len, cells)))
    ]


def _drawn(drawn: Drawn, paint: Paint, width: int) -> Iterator[str]:
    label = {"learning rate": "lr"}.get(drawn.label, drawn.label)
    for number, line in enumerate(_wrapped(printable(drawn.words), width - len(_INDENT))):
        yield f"  {label:{len(_INDENT) - 2}}{line}" if number == 0 else f"{_INDENT}{line}"
    if len(set(drawn.curve.values)) > 1:
        for line in plot(drawn.curve):
            yield f"{_INDENT}{paint(line, _CYAN)}"


def _wrapped(text: str, width: int) -> list[str]:
    return [text] if len(text) <= width else wrap(text, width, break_on_hyphens=False) or [""]


def plot(curve: Curve, width: int = _WIDTH, height: int = _HEIGHT) -> list[str]:
    """A curve from 0 to its largest value in block characters, one column for each of `width` steps."""
    top = max(curve.values)
    values = [_at(curve, 1 + place * (curve.steps[-1] - 1) / (width - 1)) for place in range(width)]
    eighths = [round(value / top * 8 * height) for value in values]
    return [
        "".join(_BLOCKS[min(8, max(0, each - 8 * level))] for each in eighths).rstrip()
        for level in reversed(range(height))
    ]


def _at(curve: Curve, step: float) -> float:
    """The curve's value at the last of its points that is not after the step."""
    return curve.values[bisect_right(curve.steps, step) - 1]
