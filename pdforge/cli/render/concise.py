"""Findings one a line, for editors and grep: `file:line:column: CODE severity: message`."""

from __future__ import annotations

from collections.abc import Iterable

from pdforge.cli.render.plain import printable
from pdforge.diagnostics import Diagnostic


def concise(diagnostics: Iterable[Diagnostic]) -> str:
    """The findings, each on its own line."""
    return "".join(printable(f"{d.place}: {d.code} {d.severity}: {d.message}") + "\n" for d in diagnostics)
