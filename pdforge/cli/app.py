"""The `pdforge` command: finds what its arguments name, calls it, and turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import NoReturn

from pdforge.cli import quick
from pdforge.errors import EnvironmentFault, PdforgeError

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there; the same command goes on where it was"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a place that you may read and write"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "something else is there: name another place"),
    errno.ENOENT: "name a place that there is",
}
"""By what the system says, of what no command foresaw."""


def main() -> None:
    """Entry point. Exit codes: `pdforge.errors.ExitCode`; 130 when interrupted."""
    try:
        run(sys.argv[1:])
    except SystemExit as ending:
        if sys.argv[1:] and sys.argv[1] in quick.COMMANDS:
            quick.leave(ending)
        raise


def run(arguments: list[str]) -> None:
    """Carry out a command, in a process of its own: streams, garbage collection and plugins are set for it.

    Raises:
        SystemExit: always, with the exit code.
    """
    quick.without_plugins()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this process
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without τ and α must not be a traceback
    try:
        _dispatch(arguments)
    except PdforgeError as error:
        _fail(error)
    except BrokenPipeError:  # whoever read the output, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written: anywhere, at any time
        _fail(_fault(error))
    except KeyboardInterrupt:  # where typer does not handle it: while the command was loaded, and in a quick one
        sys.exit(130)


def _fail(error: PdforgeError) -> NoReturn:
    from pdforge.cli.render.error import print_error  # noqa: PLC0415 - only a failing command needs rich

    print_error(error)
    sys.exit(error.exit_code)


def _fault(error: OSError) -> EnvironmentFault:
    if error.errno == errno.ENOENT and error.filename is None:  # of `getcwd`
        return EnvironmentFault("the current directory does not exist any more", remedy="go to one that does")
    place = f"{error.filename}: " if error.filename else ""
    return EnvironmentFault(f"{place}{error.strerror or error}", remedy=_REMEDIES.get(error.errno or 0, ""))


def _dispatch(arguments: list[str]) -> None:
    """Import and call the command; `validate` never pays for the launcher, nor without options for typer."""
    if quick.names_only(arguments):
        sys.exit(quick.direct(arguments[0])(arguments[1:]))
    with quick.importing():
        from pdforge.cli.commands import build  # noqa: PLC0415

        app = build(arguments)
    app(arguments, prog_name="pdforge")
