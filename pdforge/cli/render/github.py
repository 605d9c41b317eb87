"""Findings as GitHub workflow commands: each becomes an annotation at its line of the pull request."""

from __future__ import annotations

from collections.abc import Iterable

from pdforge.diagnostics import Diagnostic
from pdforge.errors import PdforgeError


def github(diagnostics: Iterable[Diagnostic], unreadable: Iterable[PdforgeError] = ()) -> str:
    """One `::error …::` or `::warning …::` a finding; sources that could not be read are errors of no file."""
    commands = [_annotation(diagnostic) for diagnostic in diagnostics]
    commands += [f"::error title=pdforge::{_data(str(error))}" for error in unreadable]
    return "".join(f"{command}\n" for command in commands)


def _annotation(diagnostic: Diagnostic) -> str:
    place, message = diagnostic.place, diagnostic.message
    properties = {}
    if place.in_file:
        properties = {"file": place.file, "line": str(place.line or 1), "col": str(place.column or 1)}
    else:
        message = f"{place}: {message}"
    properties["title"] = f"{diagnostic.code} {diagnostic.field}".strip()
    if diagnostic.help:
        message += f"\n{diagnostic.help}"
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{diagnostic.severity} {listed}::{_data(message)}"


def _data(text: str) -> str:
    """Escaped as the runner unescapes a command's message: no text can start a command of its own."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
