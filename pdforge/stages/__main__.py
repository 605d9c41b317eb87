"""`python -m pdforge.stages STAGE_DIRECTORY`: one rank of a stage, by hand or under torchrun."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from pdforge.errors import ExitCode, PdforgeError
from pdforge.stages import main, stop


def _main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m pdforge.stages STAGE_DIRECTORY", file=sys.stderr)
        return ExitCode.COULD_NOT_RUN
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: stop.request())
    try:
        return main(Path(arguments[0]).absolute())
    except PdforgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
