"""Every exception that pdforge raises for a reason a user can act on, and the exit codes they map to.

PdforgeError                   what, and what to do about it; no traceback reaches a user
├── RecipeError                findings in a recipe or cluster profile: a list of diagnostics   (exit 1)
├── StageFailed                a stage of a run ended without success                           (exit 1)
├── EnvironmentFault           this machine lacks something: package, version, device, file     (exit 2)
│   └── NodeFault              … which it should have: another machine may be well
├── StoreError                 a token or logit store cannot serve what was asked               (exit 2)
│   ├── StoreMismatch          it holds something else: names the differing field
│   ├── StoreMissing           no store, shard or sample there (yet)
│   └── StoreDamaged           a checksum or a structure does not hold: names file and block
└── UsageError                 a command cannot do what its arguments say                       (exit 2)
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pdforge.diagnostics import Diagnostic


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FINDINGS = 1
    COULD_NOT_RUN = 2
    STOPPED = 75
    """A stage stopped on request with everything saved: start it again to go on (EX_TEMPFAIL)."""


class PdforgeError(Exception):
    """Base of all. `message` says what is wrong and where, `remedy` what to do about it."""

    exit_code = ExitCode.COULD_NOT_RUN

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class RecipeError(PdforgeError):
    """One or more findings in what a user wrote."""

    exit_code = ExitCode.FINDINGS

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("; ".join(d.message for d in diagnostics))
        self.diagnostics = list(diagnostics)


class StageFailed(PdforgeError):
    """A stage ended without success; the message carries the failing rank's last lines."""

    exit_code = ExitCode.FINDINGS


class EnvironmentFault(PdforgeError):
    """This machine lacks something that the command needs."""


class NodeFault(EnvironmentFault):
    """This machine has lost what it should have: the same work may go on upon another."""


class StoreError(PdforgeError):
    """A token or logit store cannot serve what was asked of it."""


class StoreMismatch(StoreError):
    """The store holds something other than what the run needs."""


class StoreMissing(StoreError):
    """The store, or a part of it, is not there."""


class StoreDamaged(StoreError):
    """What is stored is not what was written."""


class UsageError(PdforgeError):
    """The arguments of a command do not fit together, or name what does not exist."""
