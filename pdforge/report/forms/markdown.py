"""A report as GitHub-flavoured markdown."""

from __future__ import annotations

from collections.abc import Sequence

from pdforge.report.tables import Table


def to_markdown(title: str, tables: Sequence[Table], images: Sequence[str] = ()) -> str:
    """The tables, and images by their names relative to where the page lies."""
    parts = [f"# {title}"]
    for table in tables:
        parts += [f"## {table.title}"] if table.title else []
        parts.append(_table(table))
        parts += ["\n".join(f"- {note}" for note in table.notes)] if table.notes else []
    parts += [f"![{name}]({name})" for name in images]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    rules = ["---", *["---:"] * (len(table.columns) - 1)]
    return "\n".join(_line(cells) for cells in (table.columns, rules, *table.rows))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"
