"""JSON for programs. Keys are never renamed; new ones may be added."""

from __future__ import annotations

import json
from typing import Any

from pdforge.diagnostics import Diagnostic


def to_json(value: Any) -> str:
    """`value` as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def diagnostic_values(diagnostic: Diagnostic) -> dict[str, Any]:
    """A finding as JSON values; line and column are null where it is about a file or an option as a whole."""
    return {
        "code": diagnostic.code,
        "severity": str(diagnostic.severity),
        "message": diagnostic.message,
        "file": diagnostic.place.file,
        "line": diagnostic.place.line or None,
        "column": diagnostic.place.column or None,
        "field": diagnostic.field or None,
        "help": diagnostic.help or None,
    }
