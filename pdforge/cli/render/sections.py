"""A page as data: titled sections of lines, tables and curves, which every form lays out in its own way."""

from typing import NamedTuple

from pdforge.plan.curves import Curve


class Column(NamedTuple):
    """A column of a table."""

    name: str
    right: bool = False
    """Numbers stand to the right."""
    wide: bool = False
    """May be broken over lines."""
    path: bool = False
    """May lose its beginning, where there is no room: the end tells more."""
    key: bool = False
    """Says what a row is of: stands in each part of a table that is too wide for one."""


class Row(NamedTuple):
    """A row of a table."""

    cells: tuple[str, ...]
    dim: bool = False
    """Of something that is done already."""
    strong: bool = False
    """A sum."""


class Table(NamedTuple):
    """Columns and rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def widths(self) -> list[int]:
        """Characters of each column."""
        cells = [[column.name for column in self.columns], *(row.cells for row in self.rows)]
        return [max(map(len, column)) for column in zip(*cells, strict=True)]

    @property
    def width(self) -> int:
        """Characters of a row, with two between columns."""
        return sum(self.widths) + 2 * (len(self.columns) - 1)


class Drawn(NamedTuple):
    """A curve with the words for it."""

    label: str
    words: str
    curve: Curve


class Section(NamedTuple):
    """A part of a page: each of its parts may be empty."""

    title: str
    lines: tuple[str, ...] = ()
    table: Table | None = None
    drawn: tuple[Drawn, ...] = ()
    notes: tuple[str, ...] = ()
    """After the rest: where figures come from."""
    warnings: tuple[str, ...] = ()
    """Lines that must not be overlooked."""
