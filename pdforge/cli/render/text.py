"""Findings for people: message, place, the line with a caret, and what would be accepted.

Written without rich, whose import takes as long as checking a recipe.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from pdforge.cli.render.plain import printable
from pdforge.diagnostics import Diagnostic, Place, Severity

_STYLE = {Severity.ERROR: "1;31", Severity.WARNING: "1;33"}
_BLUE, _CYAN, _DIM = "34", "1;36", "2"
_WIDEST = 160
"""Characters of a line that are shown around the caret."""


def print_diagnostics(
    stream: IO[str], diagnostics: Iterable[Diagnostic], sources: Mapping[str, str] | None = None
) -> None:
    """Print findings one below the other; `sources` holds texts that are no files (stdin) by their place's name."""
    stream.write(format_diagnostics(diagnostics, Paint.of(stream), sources))


def format_diagnostics(
    diagnostics: Iterable[Diagnostic], paint: Paint, sources: Mapping[str, str] | None = None
) -> str:
    """What `print_diagnostics` prints."""
    return "".join(f"{_format(diagnostic, sources or {}, paint)}\n" for diagnostic in diagnostics)


class Paint:
    """Colours text, on terminals that want it."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def __call__(self, text: str, style: str) -> str:
        """The text in a style, by its number in terminals; "" is none."""
        return f"\x1b[{style}m{text}\x1b[0m" if self.wanted and style else text

    @classmethod
    def of(cls, stream: IO[str]) -> Paint:
        """For what is written there."""
        return cls(stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def _format(diagnostic: Diagnostic, sources: Mapping[str, str], paint: Paint) -> str:
    style = _STYLE[diagnostic.severity]
    field = f"  {paint(f'({printable(diagnostic.field)})', _DIM)}" if diagnostic.field else ""
    lines = [
        f"{paint(f'{diagnostic.severity}[{diagnostic.code}]', style)}: {printable(diagnostic.message)}",
        paint(f"  --> {printable(str(diagnostic.place))}", _BLUE) + field,
    ]
    shown = _line(diagnostic.place, sources)
    if shown is not None:
        line, caret = shown
        number = str(diagnostic.place.line)
        lines.append(f"{paint(f'  {number} | ', _BLUE)}{line}")
        margin = " " * len(number)
        lines.append(f"{paint(f'  {margin} | ', _BLUE)}{' ' * caret}{paint('^', style)}")
    if diagnostic.help:
        lines.append(f"  {paint('help', _CYAN)}: {printable(diagnostic.help)}")
    return "".join(f"{line}\n" for line in lines)


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
