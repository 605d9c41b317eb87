"""Findings for people: message, place, the line with a caret, and what would be accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pdforge.cli.render.plain import printable
from pdforge.diagnostics import Diagnostic, Place, Severity

_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow"}
_WIDEST = 160
"""Characters of a line that are shown around the caret."""


def print_diagnostics(
    console: Console, diagnostics: Iterable[Diagnostic], sources: Mapping[str, str] | None = None
) -> None:
    """Print findings one below the other; `sources` holds texts that are no files (stdin) by their place's name."""
    for diagnostic in diagnostics:
        console.print(_format(diagnostic, sources or {}), soft_wrap=True)


def _format(diagnostic: Diagnostic, sources: Mapping[str, str]) -> Text:
    style = _STYLE[diagnostic.severity]
    text = Text.assemble((f"{diagnostic.severity}[{diagnostic.code}]", style), f": {printable(diagnostic.message)}\n")
    text.append(f"  --> {printable(str(diagnostic.place))}", "blue")
    if diagnostic.field:
        text.append(f"  ({printable(diagnostic.field)})", "dim")
    text.append("\n")
    shown = _line(diagnostic.place, sources)
    if shown is not None:
        line, caret = shown
        number = str(diagnostic.place.line)
        text.append(f"  {number} | ", "blue").append(f"{line}\n")
        text.append(f"  {' ' * len(number)} | ", "blue").append(" " * caret).append("^", style).append("\n")
    if diagnostic.help:
        text.append("  help", "bold cyan").append(f": {printable(diagnostic.help)}\n")
    return text


def _line(place: Place, sources: Mapping[str, str]) -> tuple[str, int] | None:
    """The line that the place points at and the caret's offset; None where it points at none, or the file is gone."""
    if not (place.line and place.column):
        return None
    try:
        text = sources[place.file] if place.file in sources else Path(place.file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    lines = text.split("\n")
    if place.line > len(lines):
        return None
    start = 0 if place.column < _WIDEST else place.column - _WIDEST // 2
    return printable(lines[place.line - 1][start : start + _WIDEST]).rstrip(), place.column - 1 - start
