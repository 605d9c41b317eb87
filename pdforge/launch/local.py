"""Attempts on this machine, through submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

import submitit
from submitit.local.local import LocalJob

from pdforge.errors import UsageError
from pdforge.launch import task
from pdforge.launch.attempts import has_living_rank
from pdforge.launch.join import ATTEMPT_VARIABLE
from pdforge.launch.lock import Lock
from pdforge.launch.process import ProcessId, kill_group
from pdforge.launch.progress import Mark
from pdforge.launch.records import STALLS_AFTER_S, AttemptRecord, read_attempt, read_ranks, write_attempt
from pdforge.launch.task import RankTask
from pdforge.layout import AttemptDirectory, StageDirectory

_FOREVER_S = 10 * 365 * 24 * 3600
"""submitit stops local jobs after two minutes unless told otherwise; there is no "never"."""

_SUBMITIT_PLACEHOLDERS = ("%j", "%t", "%A", "%a")


def start(
    stage: StageDirectory,
    processes: int,
    lock: Lock,
    *,
    high_water: Mark,
    stalls_after: float = STALLS_AFTER_S,
    environment: Mapping[str, str] | None = None,
    share: int = 1,
) -> tuple[AttemptDirectory, LocalAttempt]:
    """Start an attempt of the stage, whose lock the caller holds. The attempt inherits it: the caller may close it.

    `environment` is the profile's, for the ranks, beside that of this process; `stalls_after` counts seconds without
    progress, after which it ends; `share` attempts share this machine's cores.

    Raises:
        UsageError: the path cannot be handed to submitit.
    """
    placeholder = next((part for part in _SUBMITIT_PLACEHOLDERS if part in str(stage.path)), None)
    if placeholder:
        raise UsageError(
            f"{stage.path}: submitit cannot work below a path with {placeholder!r} in it",
            remedy="choose another --root",
        )
    previous = stage.all_attempts()
    attempt = stage.attempt(previous[-1].number + 1 if previous else 1)
    attempt.path.mkdir(parents=True)
    record = AttemptRecord(
        executor="local",
        processes=processes,
        master_address="127.0.0.1",
        master_port=_free_port(),
        driver=ProcessId.of(os.getpid()),
        high_water=high_water.step,
        phase=high_water.phase,
        stalls_after=stalls_after,
        started=time.time(),
    )
    write_attempt(attempt, record)
    threads = cores() // (processes * share)
    executor = _Executor(attempt, processes, lock, environment or {}, threads)
    executor.submit(RankTask(str(stage.path), task.ENTRY))
    write_attempt(attempt, record.model_copy(update={"controller": ProcessId.of(executor.controller.pid)}))
    return attempt, LocalAttempt(attempt, executor.controller)


class LocalAttempt:
    """A started attempt as the process that started it sees it."""

    def __init__(self, attempt: AttemptDirectory, process: subprocess.Popen[bytes]) -> None:
        self._attempt = attempt
        self._process = process

    def has_ended(self) -> bool:
        """Whether all ranks are gone. What they started and left behind is killed then."""
        if self._process.returncode is None:
            over = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if over is None:
                return False
            kill_group(self._process.pid)  # before the pid is given back to the system below
            self._process.wait()
        return not has_living_rank(self._attempt)


def kill(attempt: AttemptDirectory) -> None:
    """Kill every process of an attempt of this host. `request_stop` first: then the records say that it was wanted."""
    record = read_attempt(attempt)
    if record and record.controller and record.controller.is_alive:
        kill_group(record.controller.pid)
    for rank in read_ranks(attempt):  # of an attempt whose starter died before it noted the controller
        if rank.process.is_alive:
            with contextlib.suppress(ProcessLookupError):
                kill_group(os.getpgid(rank.process.pid))


class _Executor(submitit.LocalExecutor):  # type: ignore[misc]
    """submitit's local executor with the start of its controller our way:

    - the controller leads a session, hence a process group: Ctrl-C reaches whoever launched and not the ranks, and one
      signal kills all;
    - it inherits the stage's lock, which so is held exactly as long as it lives (the ranks die with it);
    - CUDA_VISIBLE_DEVICES stays as it is, where submitit sets it to "" or to 0 … n-1 of all devices;
    - it does not write to the terminal.
    """

    def __init__(
        self, attempt: AttemptDirectory, processes: int, lock: Lock, environment: Mapping[str, str], threads: int
    ) -> None:
        super().__init__(attempt.path)
        self._environment = environment
        self._threads = max(1, threads)
        self._attempt = attempt
        self._processes = processes
        self._lock = lock
        self.update_parameters(tasks_per_node=processes, timeout_min=_FOREVER_S // 60)

    def _submit_command(self, command: str) -> LocalJob:
        environment = {
            # before anything is imported in a rank: numpy and torch read it when they are loaded
            "OMP_NUM_THREADS": str(self._threads),
            # the host's name need not resolve, and ranks of one machine have no business on its network
            "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
            **os.environ,
            **self._environment,
            ATTEMPT_VARIABLE: str(self._attempt.number),
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_NTASKS": str(self._processes),
            "SUBMITIT_LOCAL_TIMEOUT_S": str(_FOREVER_S),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "0",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
        }
        with self._attempt.controller_log.open("ab") as log:
            self.controller = subprocess.Popen(
                [sys.executable, "-m", "submitit.local._local", str(self.folder)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(self._lock.fileno(),),
            )
        tasks = list(range(self._processes))
        return LocalJob(self.folder, job_id=str(self.controller.pid), tasks=tasks, process=self.controller)

    @property
    def _submitit_command_str(self) -> str:
        return shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(self.folder)])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
