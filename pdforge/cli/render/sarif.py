"""Findings as SARIF 2.1.0 (OASIS), which code-scanning services and editors read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pdforge import __version__
from pdforge.cli.render.as_json import to_json
from pdforge.diagnostics import Diagnostic, Place
from pdforge.errors import PdforgeError
from pdforge.recipe.rules import TOPICS, Topic

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(diagnostics: Iterable[Diagnostic], unreadable: Iterable[PdforgeError] = ()) -> str:
    """One SARIF log with one run; its rules are those that were found."""
    found, failed = list(diagnostics), list(unreadable)
    codes = sorted({diagnostic.code for diagnostic in found})
    run = {
        "tool": {
            "driver": {"name": "pdforge", "version": __version__, "rules": [_rule(TOPICS[code]) for code in codes]}
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": not failed,
                "toolExecutionNotifications": [{"level": "error", "message": {"text": str(error)}} for error in failed],
            }
        ],
        "results": [_result(diagnostic, codes.index(diagnostic.code)) for diagnostic in found],
    }
    return to_json({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}) + "\n"


def _rule(topic: Topic) -> dict[str, Any]:
    return {
        "id": topic.code,
        "shortDescription": {"text": topic.title},
        "fullDescription": {"text": topic.explanation},
        "help": {"text": f"{topic.explanation}\n\npdforge explain {topic.code}"},
        "defaultConfiguration": {"level": str(topic.severity)},
    }


def _result(diagnostic: Diagnostic, rule: int) -> dict[str, Any]:
    text = f"{diagnostic.message}\n{diagnostic.help}" if diagnostic.help else diagnostic.message
    location: dict[str, Any] = {}
    if diagnostic.place.in_file:
        location["physicalLocation"] = _physical(diagnostic.place)
    if diagnostic.field:
        location["logicalLocations"] = [{"fullyQualifiedName": diagnostic.field, "kind": "member"}]
    if not diagnostic.place.in_file:
        location["message"] = {"text": str(diagnostic.place)}
    return {
        "ruleId": diagnostic.code,
        "ruleIndex": rule,
        "level": str(diagnostic.severity),
        "message": {"text": text},
        "locations": [location],
    }


def _physical(place: Place) -> dict[str, Any]:
    path = Path(place.file)
    artifact = {"uri": path.as_uri()} if path.is_absolute() else {"uri": quote(path.as_posix())}
    region = {"startLine": place.line or 1, "startColumn": place.column or 1}
    return {"artifactLocation": artifact, "region": region}
