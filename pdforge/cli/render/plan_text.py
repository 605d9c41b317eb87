"""The page of a plan on a terminal of a hundred columns, readable without colour.

Written without rich, whose import and tables take longer than all the figures.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from textwrap import wrap

from pdforge.cli.render.plain import printable
from pdforge.cli.render.sections import Column, Drawn, Row, Section, Table
from pdforge.cli.render.text import Paint
from pdforge.plan.curves import Curve

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 72, 3
_INDENT = " " * 10
_BETWEEN = "  "
_NARROWEST = 12
"""Characters that are left of a column, however little room there is."""
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
        yield from (paint(line, _BOLD) for line in _wrapped(printable(section.title), width))
    for line in section.lines:
        yield from (f"  {part}" for part in _wrapped(printable(line), width - 2))
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
    """The rows; of a table that is too wide the keys and some columns, then the keys and the next."""
    cells = tuple(Row(tuple(map(printable, row.cells)), row.dim, row.strong) for row in table.rows)
    widths = _squeezed(Table(table.columns, cells), width)
    for number, chosen in enumerate(_parts(table.columns, widths, width)):
        if number:
            yield ""
        part = Table(
            tuple(table.columns[each] for each in chosen),
            tuple(Row(tuple(row.cells[each] for each in chosen), row.dim, row.strong) for row in cells),
        )
        yield from _lines(part, [widths[each] for each in chosen], paint)


def _squeezed(table: Table, width: int) -> list[int]:
    """Of each column, so that all fit together where that costs no column too much; else as wide as they are, but for
    keys that would leave no room.
    """
    widths = table.widths
    least = [
        max(min(_NARROWEST, size), size * 3 // 5) if column.wide else min(_NARROWEST, size) if column.path else size
        for column, size in zip(table.columns, widths, strict=True)
    ]
    excess = table.width - width
    if sum(widths) - sum(least) < excess:
        return [
            min(size, width // 2) if column.key else size for column, size in zip(table.columns, widths, strict=True)
        ]
    for _ in range(excess):
        widest = max(
            (number for number in range(len(widths)) if widths[number] > least[number]), key=widths.__getitem__
        )
        widths[widest] -= 1
    return widths


def _parts(columns: Sequence[Column], widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """The numbers of the columns of each part."""
    keys = [number for number, column in enumerate(columns) if column.key]
    part, taken = list(keys), sum(widths[key] + len(_BETWEEN) for key in keys)
    for number in range(len(columns)):
        if number in keys:
            continue
        if len(part) > len(keys) and taken + widths[number] > width:
            yield part
            part, taken = list(keys), sum(widths[key] + len(_BETWEEN) for key in keys)
        part.append(number)
        taken += widths[number] + len(_BETWEEN)
    yield part


def _lines(table: Table, widths: Sequence[int], paint: Paint) -> Iterator[str]:
    header = [_cell(column.name, column, size) for column, size in zip(table.columns, widths, strict=True)]
    yield from (paint(line, _BOLD) for line in _row(header, table, widths))
    for row in table.rows:
        cells = [_cell(*each) for each in zip(row.cells, table.columns, widths, strict=True)]
        style = _DIM if row.dim else _BOLD if row.strong else ""
        yield from (paint(line, style) for line in _row(cells, table, widths))


def _cell(text: str, column: Column, size: int) -> list[str]:
    """The lines of a cell."""
    if column.path and len(text) > size:
        return [f"…{text[len(text) - size + 1 :]}"]
    return _wrapped(text, size)


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
