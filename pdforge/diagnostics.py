"""The one diagnostic type: what a check found, where, and what would be accepted."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

LONGEST = 1000
"""Characters of a text of a finding."""


class Severity(StrEnum):
    """How much a finding weighs: only errors stop a run."""

    ERROR = "error"
    WARNING = "warning"


class Place(NamedTuple):
    """A position in a file, 1-based. Column 0 or line 0: the file (or the option named as `file`) as a whole."""

    file: str
    line: int = 0
    column: int = 0

    @property
    def in_file(self) -> bool:
        """Whether `file` names a file, and not an option or standard input."""
        return not self.file.startswith(("--set ", "<stdin>"))

    def __str__(self) -> str:
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])


@dataclass(frozen=True)
class Diagnostic:
    """One finding.

    `message` says what is wrong and quotes the value; `help` says what is accepted, or suggests a fix;
    `field` is the dotted path in the recipe (`teacher.truncation.top_p`), empty for syntax.
    """

    code: str
    severity: Severity
    message: str
    place: Place
    help: str = ""
    field: str = ""

    def __post_init__(self) -> None:
        """Cut texts that quote a key or a name of any length: a finding is read by people."""
        for name in ("message", "help", "field"):
            text = getattr(self, name)
            if len(text) > LONGEST:
                object.__setattr__(self, name, f"{text[: LONGEST - 1]}…")
