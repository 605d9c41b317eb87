"""The stages of runs as a graph of SLURM jobs. Each stage is submitted once, whoever asks, however often."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pdforge.errors import EnvironmentFault, UsageError
from pdforge.launch.drive import WriteStage, write_runs
from pdforge.launch.exclusion import Exclusion, avoided, excluded, learn
from pdforge.launch.lock import is_locked
from pdforge.launch.scheduler import cluster_name, control, held_jobs, is_answering, job_states
from pdforge.launch.script import JobScript, shape_of
from pdforge.launch.slurm import After, Executor, of_the_moment
from pdforge.launch.submission import Submission, claim, describe_submitter, latest_submission
from pdforge.layout import RunDirectory, StageDirectory
from pdforge.plan.model import Plan, Stage, merged_stages
from pdforge.plan.profile import Profile

StageState = Literal["submitted", "attached", "done"]
TakeSnapshot = Callable[[RunDirectory], Path]

_COMPILE_TIMEOUT_S = 5.0
"""How long a submitter that lives may take to compile a stage after it has claimed it."""


@dataclass(frozen=True)
class StageJob:
    """What became of one stage."""

    title: str
    state: StageState
    """`attached`: a job was there already."""
    jobs: list[str]
    avoided: list[Exclusion] = field(default_factory=list)
    """Nodes that its jobs do not use, because they failed."""


def submit_graph(
    plans: Sequence[Plan],
    root: Path,
    *,
    write_stage: WriteStage | None = None,
    snapshot: TakeSnapshot | None = None,
) -> list[StageJob]:
    """Give every stage that is not done, and has no job, to SLURM; then leave.

    Raises:
        EnvironmentFault: SLURM cannot be asked, or refuses a job: nothing that this call submitted stays.
        UsageError: a stage runs on this machine without SLURM.
    """
    from pdforge.compile import write_stage as compile_stage  # noqa: PLC0415 - templates: only where needed
    from pdforge.launch.snapshot import take_snapshot  # noqa: PLC0415

    if why := is_answering():
        raise EnvironmentFault(
            f"SLURM cannot be asked: {why}",
            remedy="submit from a machine of the cluster, or run here: `--cluster local`",
        )
    write_runs(plans, root)
    graph = _Graph(plans, root, write_stage or compile_stage, snapshot or take_snapshot)
    try:
        for stage in merged_stages(plans):
            graph.add(stage)
        graph.release()
    except BaseException:
        graph.withdraw()
        raise
    return graph.stages


class _Graph:
    """A graph under construction."""

    def __init__(self, plans: Sequence[Plan], root: Path, write_stage: WriteStage, snapshot: TakeSnapshot) -> None:
        self._plans, self._root, self._write_stage, self._snapshot = plans, root, write_stage, snapshot
        self._last: dict[str, str] = {}
        """By key of a stage that is not done: the job after which it will be."""
        self._code: dict[str, Path] = {}
        self._own: list[str] = []
        """Jobs that this graph submitted."""
        self._attached: list[str] = []
        self._avoided: dict[str, list[Exclusion]] = {}
        """By key of a stage that this graph submitted."""
        self._lanes: list[str] = []
        """Jobs that train, in order: of them `runs_at_once` may run at one time."""
        self.stages: list[StageJob] = []

    def add(self, stage: Stage) -> None:
        """Find or make the jobs of a stage."""
        directory = StageDirectory(self._root / stage.directory)
        if directory.done.exists():
            self.stages.append(StageJob(stage.title, "done", []))
            return
        _require_unlocked(stage, directory)
        submission: Submission | None = None
        state: StageState = "attached"
        while submission is None:
            latest = latest_submission(directory)  # read once: whoever comes after it must be seen to have come
            if latest is not None and _is_active(latest):
                submission = latest
            elif submission := self._submit(stage, directory, latest.number + 1 if latest else 1):
                state = "submitted"
                _require_unlocked(stage, directory)  # whoever took the lock later has seen the submission
        if state == "attached":
            self._complete(stage, directory, submission)
            self._attached += submission.jobs
        self._last[stage.key] = submission.job
        self._lanes += [submission.job] if stage.kind == "train" else []
        self.stages.append(StageJob(stage.title, state, submission.jobs, self._avoided.get(stage.key, [])))

    def _complete(self, stage: Stage, directory: StageDirectory, submission: Submission) -> None:
        """Write what the job of another submitter will read, where that one was killed before it wrote it."""
        deadline = time.monotonic() + _COMPILE_TIMEOUT_S
        while not directory.job_json.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        if directory.job_json.exists() or directory.done.exists():
            return
        if submission.profile != self._plan_of(stage).profile:
            raise UsageError(
                f"job {submission.job} of `{stage.title}`, which {submission.by} submitted with profile "
                f"{submission.profile.name!r}, waits for its submitter, who is gone",
                remedy=f"scancel {submission.job}, then submit again",
            )
        self._write_stage(stage, self._root)

    def release(self) -> None:
        """Let the jobs run: own ones, and those whose submitter may have died before it did this."""
        for job in self._own:
            control(["scontrol", "release", job])
        for job in self._attached:
            with contextlib.suppress(EnvironmentFault):  # it has ended meanwhile
                control(["scontrol", "release", job])

    def withdraw(self) -> None:
        """Cancel what this graph submitted: after a fault half of it must not run."""
        _cancel(self._own)

    def _submit(self, stage: Stage, directory: StageDirectory, number: int) -> Submission | None:
        """Submit held jobs, then see whether they are the ones that count; None where another process was quicker."""
        plan = self._plan_of(stage)
        profile, run = plan.profile, RunDirectory(self._root / plan.directory)
        if plan.directory not in self._code:
            self._code[plan.directory] = self._snapshot(run)
        after = After(
            [self._last[key] for key in stage.needs if key in self._last], _place(stage, profile, self._lanes)
        )
        if directory.all_attempts() and (cluster := cluster_name()):
            learn(directory, cluster)
        jobs: list[str] = []
        for script in stage_scripts(stage, directory, profile, self._code[plan.directory], self._root):
            chosen = avoided(self._root, profile, script.text(), time.time())
            self._avoided[stage.key] = chosen
            nodes = excluded(profile, chosen) if chosen else ""
            jobs.append(Executor(script, After(jobs) if jobs else after, nodes).submit_held())
            self._own.append(jobs[-1])
        submission = Submission(
            number=number,
            job=jobs[-1],
            array=jobs[0] if len(jobs) > 1 else None,
            profile=profile,
            run=plan.directory,
            submitted=time.time(),
            by=describe_submitter(),
        )
        if claim(directory, submission):
            self._write_stage(stage, self._root)
            # of a submitter that was killed before it could claim; one that lives is about to cancel them itself
            _cancel([job for job in held_jobs(directory.path) if job not in jobs])
            return submission
        _cancel(jobs)
        self._own = [job for job in self._own if job not in jobs]
        for job in jobs:
            for file in directory.scheduler.glob(f"{job}_*"):
                file.unlink(missing_ok=True)
        return None

    def _plan_of(self, stage: Stage) -> Plan:
        return next(plan for plan in self._plans if any(one.key == stage.key for one in plan.stages))


def stage_scripts(stage: Stage, directory: StageDirectory, profile: Profile, code: Path, root: Path) -> list[JobScript]:
    """The jobs of a stage, in order: as a rule one; an array and the job that publishes, where a capture is shared."""
    shapes = [shape_of(stage, profile)]
    if stage.kind == "capture" and profile.capture_tasks > 1:
        publish = shape_of(stage.model_copy(update={"processes": profile.processes_per_node}), profile)
        shapes = [shape_of(stage, profile, array=True), publish]
    return [JobScript(directory, stage.title, profile, shape, code, root) for shape in shapes]


def dry_run(plans: Sequence[Plan], root: Path) -> list[tuple[str, list[str], str]]:
    """For every job that `submit_graph` would submit: title, the command's arguments, and the script, byte for byte.

    Jobs that it would have to wait for stand there by their stages' titles. Nothing is written; SLURM is asked only
    where nodes failed.
    """
    from pdforge.launch.snapshot import content_hash, package_files  # noqa: PLC0415 - as above

    jobs: list[tuple[str, list[str], str]] = []
    last: dict[str, str] = {}
    lanes: list[str] = []
    code = content_hash(package_files())
    for stage in merged_stages(plans):
        directory = StageDirectory(root / stage.directory)
        if directory.done.exists():
            continue
        plan = next(plan for plan in plans if any(one.key == stage.key for one in plan.stages))
        after = After([last[key] for key in stage.needs if key in last], _place(stage, plan.profile, lanes))
        run = RunDirectory(root / plan.directory)
        for script in stage_scripts(stage, directory, plan.profile, run.code / code, root):
            name = f"{stage.title} (array)" if script.shape.array else stage.title
            chosen = avoided(root, plan.profile, script.text(), time.time())
            options = of_the_moment(after, excluded(plan.profile, chosen) if chosen else "")
            jobs.append((name, ["sbatch", *options], script.text()))
            after = After([f"<{name}>"])
        last[stage.key] = after.success[0]
        lanes += after.success if stage.kind == "train" else []
    return jobs


def _place(stage: Stage, profile: Profile, lanes: Sequence[str]) -> list[str]:
    """The job that a training waits for so that no more than `runs_at_once` run at one time."""
    limit = profile.runs_at_once
    return [lanes[-limit]] if stage.kind == "train" and limit and len(lanes) >= limit else []


def _require_unlocked(stage: Stage, directory: StageDirectory) -> None:
    if is_locked(directory):
        raise UsageError(f"`{stage.title}` runs without SLURM on this machine", remedy="wait for its end, or cancel it")


def _cancel(jobs: Sequence[str]) -> None:
    """Take jobs from the queue, those that are gone already aside."""
    if jobs:
        with contextlib.suppress(EnvironmentFault):
            control(["scancel", *jobs])


def _is_active(submission: Submission) -> bool:
    """Whether the submission's jobs may still end the stage.

    Raises:
        EnvironmentFault: that cannot be told: what nobody knows is not submitted twice.
    """
    states = job_states(submission.jobs)
    if why := next((state.reason for state in states.values() if state.phase == "unknown"), ""):
        raise EnvironmentFault(f"whether job {submission.job} still runs is not known: {why}", remedy="try again later")
    return states[submission.job].is_active
