"""A page as data: titled sections of lines, tables and curves, which every form lays out in its own way."""

from __future__ import annotations

from dataclasses import dataclass, field

from pdforge.plan.curves import Curve


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    right: bool = False
    """Numbers stand to the right."""
    wide: bool = False
    """May be broken over lines."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    cells: tuple[str, ...]
    dim: bool = False
    """Of something that is done already."""
    strong: bool = False
    """A sum."""


@dataclass(frozen=True)
class Table:
    """Columns and rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Drawn:
    """A curve with the words for it."""

    label: str
    words: str
    curve: Curve


@dataclass(frozen=True)
class Section:
    """A part of a page: each of its parts may be empty."""

    title: str
    lines: tuple[str, ...] = ()
    table: Table | None = None
    drawn: tuple[Drawn, ...] = ()
    notes: tuple[str, ...] = ()
    """After the rest: where figures come from."""
    warnings: tuple[str, ...] = field(default=())
    """Lines that must not be overlooked."""
