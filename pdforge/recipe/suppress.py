"""`# pdforge: ignore[PD151] because …`: a warning that its author has answered, on the line it points at."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pdforge.diagnostics import Diagnostic, Place, Severity
from pdforge.recipe.reader import Document
from pdforge.recipe.rules import PLANNING, RULES

# text, not compiled: most recipes have no such comment
_COMMENT = r"(?:^|\s)#\s*pdforge:\s*ignore\b(?P<codes>\[[^\]]*\])?\s*(?P<reason>.*)$"
_FORM = "write `# pdforge: ignore[CODE] because REASON`"


class Suppressions:
    """The comments of a recipe's files."""

    def __init__(self) -> None:
        self.codes: dict[tuple[str, int], dict[str, Place]] = {}
        """Ignored codes by file and line, with the place of each comment."""
        self.used: set[tuple[str, int, str]] = set()
        """File, line and code of the comments that had something to ignore."""
        self.faults: list[Diagnostic] = []
        """Comments that are not well-formed: they ignore nothing."""

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Suppressions:
        """Read the comments of documents."""
        result = cls()
        for document in documents:
            for number, line in enumerate(document.text.splitlines(), 1):
                if "pdforge:" in line and (match := re.search(_COMMENT, line)):
                    result._add(match, Place(document.name, number, match.start("codes") + 1))
        return result

    def _add(self, match: re.Match[str], place: Place) -> None:
        codes = {code.strip() for code in (match["codes"] or "")[1:-1].split(",")} - {""}
        unknown = sorted(codes - RULES.keys() - PLANNING.keys())
        if not codes or unknown:
            what = f"ignores {unknown[0]}, which is no rule" if unknown else "names no rule"
            self._fault(f"the comment {what}", place)
        elif not match["reason"].removeprefix("because").strip():
            self._fault(f"ignoring {', '.join(sorted(codes))} needs a reason", place)
        else:
            self.codes.setdefault((place.file, place.line), {}).update(dict.fromkeys(codes, place))

    def _fault(self, message: str, place: Place) -> None:
        self.faults.append(Diagnostic("PD010", Severity.ERROR, message, place, _FORM))

    def apply(self, diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
        """Diagnostics without the ignored ones. Errors stay: no comment makes the impossible possible."""
        kept = []
        for d in diagnostics:
            line = (d.place.file, d.place.line)
            if d.severity is Severity.ERROR or d.code not in self.codes.get(line, ()):
                kept.append(d)
            else:
                self.used.add((*line, d.code))
        return kept

    def unused(self, file: str) -> list[Diagnostic]:
        """Warnings about the comments of a file that had nothing to ignore; for when all its recipes are checked.

        Comments on what only a plan finds are left out: a recipe alone does not tell.
        """
        return [
            Diagnostic(
                "PD011", Severity.WARNING, f"nothing on this line is found by {code}", place, "delete the comment"
            )
            for (name, line), codes in self.codes.items()
            for code, place in sorted(codes.items())
            if name == file and code in RULES and (name, line, code) not in self.used
        ]
