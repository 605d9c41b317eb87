"""Ranks of `pdforge.titan.train`, forked from a process that has imported torchtitan: they start in no time, where
importing it takes each rank seconds. `torchrun` itself starts the trainings of tests/stages.

As a process it reads one JSON object a line, {processes, cwd, arguments, output, environment}, and answers with an exit
code.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.stages.conftest import ENVIRONMENT

MODULE = "pdforge.titan.train"


class Ranks:
    """The process; `close` it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.titan.ranks"],
            cwd=Path(__file__).parents[2],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, processes: int, cwd: Path, *arguments: str) -> tuple[int, str]:
        """The exit code, of the rank that ended first with another than 0 where one did, and what all ranks wrote."""
        assert self._process.stdin
        assert self._process.stdout
        output = cwd / "output.txt"
        wanted = {"processes": processes, "cwd": str(cwd), "arguments": arguments, "output": str(output)}
        wanted["environment"] = ENVIRONMENT  # as it is now: tests change it
        print(json.dumps(wanted), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the process that forks ranks is gone"
        return int(answer), output.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def _serve() -> None:
    import pdforge.titan  # noqa: F401, PLC0415 - once, for all ranks

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(_run(**json.loads(line)), file=answers, flush=True)


def _run(processes: int, cwd: str, arguments: list[str], output: str, environment: dict[str, str]) -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Path(output).open("wb") as log:
        ranks = {_fork(rank, processes, port, cwd, arguments, log.fileno(), environment) for rank in range(processes)}
    failed = 0
    while ranks:
        pid, status = os.wait()
        ranks.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        if code and not failed:
            failed = code
            for other in ranks:
                os.kill(other, signal.SIGTERM)
    return failed


def _fork(
    rank: int, processes: int, port: int, cwd: str, arguments: list[str], log: int, environment: dict[str, str]
) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(cwd)
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ |= environment | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {name: str(number) for name, number in numbers.items()}
        sys.path[0], sys.argv[1:] = cwd, arguments
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - what Python itself does at the end of a process
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
