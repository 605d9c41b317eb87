"""Carries plans out: one stage after another, each at most once at a time on this storage root, whoever asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pdforge.errors import EnvironmentFault, StageFailed, UsageError
from pdforge.launch import local
from pdforge.launch.attempts import has_living_rank, high_water, request_stop, running_attempt
from pdforge.launch.budget import fruitless
from pdforge.launch.driver import register, registered
from pdforge.launch.hook import EndState, run_hook
from pdforge.launch.lock import Lock, is_locked, try_lock
from pdforge.launch.outcome import judge, stage_failed
from pdforge.launch.records import read_attempt
from pdforge.launch.status import StageStatus, stage_status
from pdforge.layout import AttemptDirectory, RunDirectory, StageDirectory, write_atomically, write_json
from pdforge.plan.measured import keep_measured
from pdforge.plan.model import Plan, Stage, merged_stages
from pdforge.plan.profile import Profile

PERIOD_S = 0.2

OnEvent = Callable[[StageStatus], None]
WriteStage = Callable[[Stage, Path], object]


class Running(Protocol):
    """An attempt while somebody waits for it."""

    def has_ended(self) -> bool:
        """Whether all of its ranks are gone."""


class StopRequested(Exception):
    """The stages were asked to stop and have saved; the same command goes on."""


class Detached(StopRequested):
    """Somebody else's attempt was being waited for; it goes on."""


@dataclass
class StopSwitch:
    """Set by a signal handler, read by `drive`: 1 asks the running attempt to save and end, 2 kills it."""

    level: int = 0

    def press(self) -> None:
        """Once more."""
        self.level += 1


@dataclass
class Drive:
    """Carries out `plans` below `root`. `run()` does it; the fields are how."""

    plans: Sequence[Plan]
    root: Path
    on_event: OnEvent = lambda _: None
    """Told how a stage stands whenever that may have changed."""
    stop: StopSwitch = field(default_factory=StopSwitch)
    retry: bool = False
    """Start a stage again although its last starts brought nothing."""
    write_stage: WriteStage | None = None
    """Writes a stage's job directory; default: `pdforge.compile.write_stage`."""

    def run(self) -> None:
        """Run every stage that is not done.

        Raises:
            StageFailed: a stage failed; it and what needs it, or comes after it, is not done.
            StopRequested: stopped on request; run again to go on.
        """
        require_local(self.plans)
        write_runs(self.plans, self.root)
        stages = merged_stages(self.plans)
        with registered(self.plans, self.root):
            for number, stage in enumerate(stages):
                if StageDirectory(self.root / stage.directory).done.exists():
                    self._tell(stage)
                    continue
                try:
                    self._until_done(stage)
                except StageFailed as error:
                    self._tell_end(stage, "failed")
                    rest = ", ".join(later.title for later in stages[number + 1 :])
                    raise StageFailed(
                        f"{error.message}\nnot run: {rest}" if rest else error.message, remedy=error.remedy
                    ) from error
                except Detached:
                    raise
                except StopRequested:
                    self._tell_end(stage, "stopped")
                    raise
                self._tell_end(stage, "done")

    def _tell_end(self, stage: Stage, state: EndState) -> None:
        """Call `on_end` for the runs that end with this stage; where one failed, for all that are not done."""
        for plan in self.plans:
            directories = [StageDirectory(self.root / one.directory) for one in plan.stages]
            concerned = any(one.key == stage.key for one in plan.stages)
            if concerned if state == "done" else not all(one.done.exists() for one in directories):
                run = RunDirectory(self.root / plan.directory)
                run_hook(plan.profile, run, StageDirectory(self.root / stage.directory), state)

    def _until_done(self, stage: Stage) -> None:
        directory = StageDirectory(self.root / stage.directory)
        while not directory.done.exists():
            if self.stop.level:
                raise StopRequested(f"stopped before `{stage.title}`")
            lock = try_lock(directory)
            if lock is not None:
                with lock:
                    if directory.done.exists():  # somebody was quicker
                        continue
                    attempt, running = self._start(stage, directory, lock)
                self._watch(stage, attempt, running)
                keep_measured(directory, self.root, self._profile(stage))
            elif theirs := running_attempt(directory):
                self._watch(stage, theirs, _Theirs(theirs))
            else:
                time.sleep(PERIOD_S)  # somebody is about to start it, or it is about to end
        self._tell(stage)

    def _start(self, stage: Stage, directory: StageDirectory, lock: Lock) -> tuple[AttemptDirectory, Running]:
        reached = high_water(directory)
        if not self.retry and (why := fruitless(directory)):
            raise StageFailed(
                f"stage `{stage.title}` is not started again: {why}", remedy="remove the cause, then add --retry"
            )
        write_stage = self.write_stage
        if write_stage is None:
            from pdforge.compile import write_stage as compile_stage  # noqa: PLC0415 - templates: only where needed

            write_stage = compile_stage
        write_stage(stage, self.root)
        register([RunDirectory(self.root / plan.directory) for plan in self.plans])
        profile = self._profile(stage)
        return local.start(
            directory,
            stage.processes,
            lock,
            high_water=reached,
            stalls_after=profile.watchdog.of(stage.kind),
            environment=profile.local_environment,
        )

    def _profile(self, stage: Stage) -> Profile:
        """The profile of the first run that has the stage."""
        return next(plan.profile for plan in self.plans if stage.key in {one.key for one in plan.stages})

    def _watch(self, stage: Stage, attempt: AttemptDirectory, running: Running) -> None:
        """Wait for the end of an attempt, passing on what the user asks for."""
        while not running.has_ended():
            self._tell(stage)
            if self.stop.level and isinstance(running, _Theirs) and _driven_by_another(attempt):
                raise Detached(f"`{stage.title}` goes on: it was started by another process")
            if self.stop.level:
                request_stop(attempt)
            if self.stop.level > 1:
                local.kill(attempt)
            time.sleep(PERIOD_S)
        outcome = judge(attempt)
        self._tell(stage)
        if outcome.state == "failed":
            raise stage_failed(stage.title, attempt, outcome)
        if outcome.state == "stopped":
            raise StopRequested(f"`{stage.title}` stopped on request")

    def _tell(self, stage: Stage) -> None:
        self.on_event(stage_status(stage, self.root))


@dataclass(frozen=True)
class _Theirs:
    """An attempt that another process started."""

    attempt: AttemptDirectory

    def has_ended(self) -> bool:
        return not is_locked(self.attempt.stage) and not has_living_rank(self.attempt)


def write_runs(plans: Sequence[Plan], root: Path) -> None:
    """Write `recipe.yaml` and `plan.json` of every run, and `page.json`, once: what was expected before it began.

    Raises:
        EnvironmentFault: the storage root cannot be written.
    """
    from pdforge.plan.make_page import make_page  # noqa: PLC0415 - not for `status` and `logs`
    from pdforge.recipe.load import dump_recipe  # noqa: PLC0415

    for plan in plans:
        run = RunDirectory(root / plan.directory)
        try:
            write_atomically(run.recipe, dump_recipe(plan.recipe))
            write_atomically(run.plan, plan.model_dump_json(indent=1) + "\n")
            if not run.page.exists():
                write_json(run.page, make_page([plan], root).to_json())
        except OSError as error:
            raise EnvironmentFault(
                f"cannot write below {root}: {error.strerror}", remedy="choose another --root"
            ) from error


def require_local(plans: Sequence[Plan]) -> None:
    """Refuse to run here what is planned for a scheduler.

    Raises:
        UsageError: one of the plans is.
    """
    for plan in plans:
        if plan.profile.executor != "local":
            raise UsageError(
                f"profile {plan.profile.name!r} of {plan.directory} is one of {plan.profile.executor.upper()}",
                remedy="`pdforge submit` gives it to the scheduler; name the recipe to run it here",
            )


def _driven_by_another(attempt: AttemptDirectory) -> bool:
    record = read_attempt(attempt)
    return record is not None and record.driven_elsewhere
