"""What submitit runs in every rank: the job directory's stage, with its state, its errors and its output on record.

The pickle holds the stage's directory and a name; what is to be done, and from where, is read from the stage
directory at every start, so that a pickle which a scheduler replays resumes. A signal handler here only sets a flag:
saving inside it, on one rank, would deadlock the others.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

import submitit

from pdforge import evidence, heartbeat
from pdforge.errors import ExitCode, PdforgeError
from pdforge.launch import sentinel
from pdforge.launch.join import array_share, join
from pdforge.launch.process import ProcessId, die_with_parent, started_at
from pdforge.launch.records import HANG, AttemptRecord, RankError, RankRecord, RankState, write_rank
from pdforge.launch.timings import Timeline, write_timeline
from pdforge.launch.watchdog import Watchdog
from pdforge.layout import PRIVATE, AttemptDirectory, StageDirectory
from pdforge.stages import stop

ENTRY = "pdforge.stages:main"
"""`module:function` that takes a stage directory and returns an `ExitCode`."""

EXIT_TIMEOUT_S = 60
"""How long a rank whose end is on record may take to leave: some library's thread may never end."""

EVIDENCE_TIMEOUT_S = 20
"""How long a rank that hangs may take to tell what it knows."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
_LOCAL_CONTROLLER = "SUBMITIT_LOCAL_JOB_ID"
"""submitit's local job id is the pid of the process that starts the ranks."""


@dataclass(frozen=True)
class RankTask:
    """The callable that submitit pickles."""

    stage: str
    """Stage directory."""
    entry: str
    """`ENTRY`, when it was pickled."""

    def __call__(self) -> None:
        """Run the stage. Leaves by SystemExit, never returns: submitit stores no result beside the records."""
        _leave_with_controller()
        os.umask(PRIVATE)
        environment = submitit.JobEnvironment()
        attempt, how = join(StageDirectory(Path(self.stage)), environment.global_rank)
        if how.refused:
            print(f"pdforge: {how.refused}", file=sys.stderr)
            sys.exit(ExitCode.FINDINGS)
        rank = environment.global_rank
        _export(how, rank=rank, local_rank=environment.local_rank, nodes=environment.num_nodes)
        log = _redirect_output(attempt.rank_log(rank))
        sys.exit(_Rank(attempt, rank, how, log).run(self.entry))


class _Rank:
    """One rank of one attempt: runs the entry, keeps the record."""

    def __init__(self, attempt: AttemptDirectory, rank: int, how: AttemptRecord, log: TextIO) -> None:
        self._attempt = attempt
        self._log = log
        self._stalls_after = how.stalls_after
        self._settled = threading.Lock()
        """Taken by whoever says how the rank ended, and never given back: the other waits until the process is gone."""
        self._record = RankRecord(
            rank=rank,
            process=ProcessId.of(os.getpid()),
            node=os.environ.get("SLURMD_NODENAME", ""),
            state="running",
            started=time.time(),
        )
        self._watchdog = Watchdog(
            attempt,
            rank,
            how.processes,
            stalls_after=how.stalls_after,
            on_stop=stop.request,
            on_failure=self._abandon,
        )

    def run(self, entry: str) -> int:
        """The rank's exit code."""
        for number in _STOP_SIGNALS:
            signal.signal(number, _request_stop)
        faulthandler.enable()  # a crash in native code leaves its Python stack in the log
        write_rank(self._attempt, self._record)
        evidence.collect_in(self._attempt.collectives)
        if self._record.rank == 0:
            sentinel.watch_over(self._attempt, 0, self._stalls_after)
            _keep_timeline(self._attempt)
        self._watchdog.start()
        try:
            code = _resolve(entry)(self._attempt.stage.path)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        except BaseException as error:  # noqa: BLE001 - the boundary of the rank: whatever it was goes on record
            traceback.print_exception(error, file=self._log)
            self._settle("failed", ExitCode.FINDINGS, _describe(error))
            self._leave_at_once(ExitCode.FINDINGS)
        if code == ExitCode.OK:
            self._settle("done", code)
        elif code == ExitCode.STOPPED:
            self._settle("stopped", code)
        else:
            reason = f"the stage ended with exit code {code}; its log says why"
            self._settle("failed", code, RankError(type="", message=reason))
            self._leave_at_once(code)
        faulthandler.dump_traceback_later(EXIT_TIMEOUT_S, exit=True)  # also during interpreter shutdown
        return code

    def _settle(self, state: RankState, code: int, error: RankError | None = None) -> None:
        self._settled.acquire()
        self._watchdog.end()
        write_rank(
            self._attempt,
            self._record.model_copy(
                update={"state": state, "exit_code": int(code), "error": error, "ended": time.time()}
            ),
        )

    def _abandon(self, error: RankError) -> None:
        """In the watchdog's thread: end this rank, whatever its main thread is blocked in."""
        try:
            with contextlib.suppress(OSError):  # no room for it in the log
                print(f"pdforge: this rank ends because {error.message}; it was here:", file=self._log, flush=True)
                faulthandler.dump_traceback(file=self._log)
            if error.type == HANG:
                self._tell_evidence()
            self._settle("failed", ExitCode.FINDINGS, error)
        finally:
            self._leave_at_once(ExitCode.FINDINGS)

    def _tell_evidence(self) -> None:
        """What the stage knows beside its stacks; in a thread that is left behind where it blocks."""

        def tell() -> None:
            try:
                said = evidence.gather()
            except Exception as error:  # noqa: BLE001 - of a stage that hangs anything may be broken
                said = f"{type(error).__name__}: {error}"
            if said:
                print(f"pdforge: {said}", file=self._log, flush=True)

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        thread.join(EVIDENCE_TIMEOUT_S)

    def _leave_at_once(self, code: int) -> None:
        """Without interpreter shutdown, which may wait for threads of a process group whose peers are gone."""
        with contextlib.suppress(OSError):  # no room for what is left
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _keep_timeline(attempt: AttemptDirectory) -> None:
    """Record what the start of this process goes into, as the stage tells."""
    created = started_at()
    write_timeline(attempt, Timeline(process=created))
    heartbeat.observe(lambda ends: write_timeline(attempt, Timeline(process=created, ends=dict(ends))))


def _describe(error: BaseException) -> RankError:
    kind = type(error).__name__
    if isinstance(error, PdforgeError):
        return RankError(type=kind, message=error.message, remedy=error.remedy)
    return RankError(type=kind, message=str(error), traceback="".join(traceback.format_exception(error)))


def _resolve(entry: str) -> Callable[[Path], int]:
    module, _, name = entry.partition(":")
    function: Callable[[Path], int] = getattr(importlib.import_module(module), name)
    return function


def _request_stop(_number: int, _frame: FrameType | None) -> None:
    stop.request()


def _leave_with_controller() -> None:
    """Never outlive the process that keeps the ranks of a local attempt: submitit's orphans would go on for days."""
    controller = os.environ.get(_LOCAL_CONTROLLER)
    if controller is None:
        return
    die_with_parent()
    if os.getppid() != int(controller):  # it ended before the line above
        os._exit(ExitCode.FINDINGS)


def _export(how: AttemptRecord, *, rank: int, local_rank: int, nodes: int) -> None:
    """The environment of torch.distributed. CUDA_VISIBLE_DEVICES stays as it is: the stage takes device LOCAL_RANK."""
    first, world = array_share(how.processes)
    os.environ.update(
        RANK=str(first + rank),
        LOCAL_RANK=str(local_rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(how.processes // nodes),
        MASTER_ADDR=how.master_address,
        MASTER_PORT=str(how.master_port),
    )


def _redirect_output(path: Path) -> TextIO:
    """Send standard output and error, of Python and of libraries below it, to one line-buffered file."""
    file = path.open("a", encoding="utf-8", buffering=1)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file.fileno(), stream.fileno())
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")
    return file
