"""Findings as Markdown, fit for a pull-request comment; and how text is written in Markdown at all."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pdforge.cli.render.plain import printable
from pdforge.diagnostics import Diagnostic

_SIGNS = re.compile(r"[\\`*_\[\]<>|~#&]")
_TICKS = re.compile(r"`+")


def markdown(diagnostics: Iterable[Diagnostic], summary: str) -> str:
    """The summary, and a table with a row a finding."""
    rows = [
        (
            f"{diagnostic.severity} {diagnostic.code}",
            code(str(diagnostic.place)),
            escape(diagnostic.message) + (f"<br>{escape(diagnostic.help)}" if diagnostic.help else ""),
        )
        for diagnostic in diagnostics
    ]
    found = f"\n{table(('', 'where', 'what'), rows)}" if rows else ""
    return f"**{escape(summary)}**\n{found}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; its cells are Markdown already."""
    lines = [list(header)]
    lines.append(["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [*lines, *rows])


def escape(text: str) -> str:
    """`text` as itself, in one line: none of its characters is markup."""
    return _SIGNS.sub(r"\\\g<0>", printable(text))


def code(text: str) -> str:
    """`text` as code, also in a table's cell."""
    shown = printable(text).replace("|", "\\|") or " "
    longest = max((len(ticks) for ticks in _TICKS.findall(shown)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {shown} {fence}" if longest else f"{fence}{shown}{fence}"
