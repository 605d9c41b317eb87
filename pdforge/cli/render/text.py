"""Findings for people: message, place, the line with a caret, and what would be accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pdforge.diagnostics import Diagnostic, Place, Severity

_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow"}


def print_diagnostics(
    console: Console, diagnostics: Iterable[Diagnostic], sources: Mapping[str, str] | None = None
) -> None:
    """Print findings one below the other; `sources` holds texts that are no files (stdin, `--set`) by their place's name."""
    for diagnostic in diagnostics:
        console.print(_format(diagnostic, sources or {}))


def _format(diagnostic: Diagnostic, sources: Mapping[str, str]) -> Text:
    style = _STYLE[diagnostic.severity]
    text = Text.assemble((f"{diagnostic.severity}[{diagnostic.code}]", style), f": {diagnostic.message}\n")
    text.append(f"  --> {diagnostic.place}", "blue")
    if diagnostic.field:
        text.append(f"  ({diagnostic.field})", "dim")
    text.append("\n")
    line = _line(diagnostic.place, sources)
    if line is not None:
        number = str(diagnostic.place.line)
        text.append(f"  {number} | ", "blue").append(f"{line}\n")
        text.append(f"  {' ' * len(number)} | ", "blue")
        text.append(" " * (diagnostic.place.column - 1)).append("^", style).append("\n")
    if diagnostic.help:
        text.append("  help", "bold cyan").append(f": {diagnostic.help}\n")
    return text


def _line(place: Place, sources: Mapping[str, str]) -> str | None:
    """The line that the place points at; None where it points at no line, or the file is gone."""
    if not (place.line and place.column):
        return None
    try:
        text = sources[place.file] if place.file in sources else Path(place.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    lines = text.splitlines()
    return lines[place.line - 1].replace("\t", " ") if place.line <= len(lines) else None
