"""Carries plans out: stage after stage, each at most once at a time on this storage root, whoever asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pdforge.errors import EnvironmentFault, StageFailed, UsageError
from pdforge.launch import local
from pdforge.launch.attempts import high_water
from pdforge.launch.budget import fruitless
from pdforge.launch.driver import register, registered
from pdforge.launch.hook import EndState, run_hook
from pdforge.launch.lock import Lock
from pdforge.launch.status import StageStatus, stage_status
from pdforge.launch.submission import held_by_slurm
from pdforge.launch.work import Detached, Running, StopRequested, StopSwitch, Work
from pdforge.layout import AttemptDirectory, RunDirectory, StageDirectory, write_atomically, write_json
from pdforge.plan.measured import keep_measured
from pdforge.plan.model import Plan, Stage, merged_stages
from pdforge.plan.profile import Profile

PERIOD_S = 0.2

OnEvent = Callable[[StageStatus], None]
WriteStage = Callable[[Stage, Path], object]


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
    _waiting: list[Stage] = field(default_factory=list, init=False)
    _working: dict[int, Work] = field(default_factory=dict, init=False)
    """By slot: of so many stages at once."""
    _done: set[str] = field(default_factory=set, init=False)
    _started: set[str] = field(default_factory=set, init=False)
    """Here: not by another process."""
    _failed: list[tuple[Stage, StageFailed]] = field(default_factory=list, init=False)
    _stopped: list[tuple[Stage, StopRequested]] = field(default_factory=list, init=False)

    def run(self) -> None:
        """Run every stage that is not done, as many at once as the profile allows.

        A stage that fails keeps those from starting that need it, and no others: of a sweep the other runs go on.

        Raises:
            StageFailed: stages failed; they and what needs them are not done.
            StopRequested: stopped on request; run again to go on.
        """
        require_local(self.plans)
        # the plan of one that SLURM carries out stays: `resume` goes by its profile
        write_runs([plan for plan in self.plans if not self._is_held(plan)], self.root)
        with registered(self.plans, self.root):
            self._waiting = merged_stages(self.plans)
            while self._take_up() or self._working:
                self._look()
            self._conclude()

    def _is_held(self, plan: Plan) -> bool:
        own = (StageDirectory(self.root / stage.directory) for stage in plan.stages if not stage.shared)
        return any(held_by_slurm(stage) is not None for stage in own)

    @property
    def _at_once(self) -> int:
        return min(plan.profile.runs_at_once or 1 for plan in self.plans)

    def _take_up(self) -> bool:
        """Begin with the first stages that have all they need, as far as there are places; whether there were any."""
        before = len(self._waiting)
        while ready := next((stage for stage in self._waiting if self._done.issuperset(stage.needs)), None):
            slot = next((slot for slot in range(self._at_once) if slot not in self._working), None)
            if slot is None or self.stop.level:
                break
            self._waiting.remove(ready)
            directory = StageDirectory(self.root / ready.directory)
            if directory.done.exists():
                self._done.add(ready.key)
                self.on_event(stage_status(ready, self.root))
            else:
                start = partial(self._start, ready, directory, slot)
                self._working[slot] = Work(ready, directory, self.stop, start)
        return len(self._waiting) < before

    def _look(self) -> None:
        """At every stage that is under way, once; wait a moment where nothing has ended."""
        before = len(self._working)
        for slot, work in list(self._working.items()):
            stage = work.stage
            try:
                ended = work.advance()
            except StageFailed as failure:
                self._failed.append((stage, failure))
                self._tell_end(stage, "failed")
                ended = True
            except StopRequested as request:
                self._stopped.append((stage, request))
                ended = True
            else:
                self._done |= {stage.key} if ended else set()
                if ended and stage.key in self._started:
                    keep_measured(work.directory, self.root, self._profile(stage))
                if ended:
                    self._tell_end(stage, "done")
            if ended:
                del self._working[slot]
            self.on_event(stage_status(stage, self.root))
        if len(self._working) == before:
            time.sleep(PERIOD_S)

    def _conclude(self) -> None:
        """Say what was not done, and why."""
        failed = {stage.key for stage, _ in self._failed}
        if saved := next((stage for stage, request in self._stopped if not isinstance(request, Detached)), None):
            for plan in self.plans:
                if failed.isdisjoint(stage.key for stage in plan.stages) and not self._is_done(plan):
                    self._call_hook(plan, saved, "stopped")
        if self._failed:
            raise _together([failure for _, failure in self._failed], self._waiting)
        if self._stopped:
            raise self._stopped[0][1]
        if self._waiting:
            raise StopRequested(f"stopped before `{self._waiting[0].title}`")

    def _is_done(self, plan: Plan) -> bool:
        return all(StageDirectory(self.root / stage.directory).done.exists() for stage in plan.stages)

    def _tell_end(self, stage: Stage, state: EndState) -> None:
        """Call `on_end` for the runs that have this stage."""
        for plan in self.plans:
            if any(one.key == stage.key for one in plan.stages):
                self._call_hook(plan, stage, state)

    def _call_hook(self, plan: Plan, stage: Stage, state: EndState) -> None:
        run_hook(
            plan.profile, RunDirectory(self.root / plan.directory), StageDirectory(self.root / stage.directory), state
        )

    def _profile(self, stage: Stage) -> Profile:
        """The profile of the first run that has the stage."""
        return next(plan.profile for plan in self.plans if stage.key in {one.key for one in plan.stages})

    def _start(
        self, stage: Stage, directory: StageDirectory, slot: int, lock: Lock
    ) -> tuple[AttemptDirectory, Running]:
        if held := held_by_slurm(directory):
            raise StageFailed(f"stage `{stage.title}` is not started here: {held.why}", remedy=held.remedy)
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
        self._started.add(stage.key)
        return local.start(
            directory,
            stage.processes,
            lock,
            high_water=reached,
            stalls_after=profile.watchdog.of(stage.kind),
            environment={**profile.local_environment, **profile.devices_of(slot)},
            share=self._at_once,
        )


def _together(failures: Sequence[StageFailed], waiting: Sequence[Stage]) -> StageFailed:
    """One error that says all."""
    rest = [f"not run: {', '.join(stage.title for stage in waiting)}"] if waiting else []
    messages = [failure.message for failure in failures]
    remedies = dict.fromkeys(failure.remedy for failure in failures)
    return StageFailed("\n".join([*messages, *rest]), remedy="\n".join(remedies))


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
    """Refuse to run here what is planned for a scheduler, or for more GPUs than there are.

    Raises:
        UsageError: one of the plans is.
    """
    for plan in plans:
        if plan.profile.executor == "local":
            plan.profile.devices_of((plan.profile.runs_at_once or 1) - 1)
        else:
            raise UsageError(
                f"profile {plan.profile.name!r} of {plan.directory} is one of {plan.profile.executor.upper()}",
                remedy="`pdforge submit` gives it to the scheduler; name the recipe to run it here",
            )
