"""What a change of a recipe means for its runs, decided by the plan's own identities.

A field's effect is found by making that one change alone and planning again: no list of fields has to be kept, and a
new field is judged by what `pdforge.plan.identities` makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest
from math import lcm
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pdforge.errors import PdforgeError
from pdforge.plan.build import make_plans
from pdforge.plan.content import written_fingerprint
from pdforge.plan.model import Plan, Stage, StageFigures, StageKind
from pdforge.plan.profile import Profile
from pdforge.recipe.dump import recipe_values
from pdforge.recipe.load import LoadedRecipe
from pdforge.recipe.models import Recipe, Training
from pdforge.recipe.rules.parts import trainings
from pdforge.recipe.tree import dotted
from pdforge.review.fields import Path as FieldPath
from pdforge.review.fields import changed, replaced, value_at


class Effect(StrEnum):
    """What a change means for a run, strongest first."""

    SCIENCE = "changes the science"
    """An identity changes: another run, with other results."""
    RUN = "changes the run only"
    """The same results, in a run of another name."""
    RESUMABLE = "resumable"
    """The same run: one that is under way goes on with the change."""


class Fate(StrEnum):
    """What becomes of the result of a stage."""

    REUSED = "reused"
    AGAIN = "made again"
    RENAMED = "made again under another name"
    ADDED = "new"
    DROPPED = "not needed"


@dataclass(frozen=True)
class FieldChange:
    """One differing field. `stages` are the kinds of stage whose results it changes."""

    field: str
    old: Any
    new: Any
    effect: Effect
    stages: list[StageKind]


@dataclass(frozen=True)
class StageChange:
    """One stage before and after."""

    kind: StageKind
    fate: Fate
    old: Stage | None
    new: Stage | None
    old_figures: StageFigures
    new_figures: StageFigures


@dataclass(frozen=True)
class RunDiff:
    """A run before and after."""

    name: str
    old: Plan
    new: Plan
    fields: list[FieldChange]
    stages: list[StageChange]

    @property
    def effect(self) -> Effect:
        """Of the whole change."""
        return _effect(self.old, self.new)

    @property
    def new_flops(self) -> float | None:
        """Of the stages that have to be run when the old run is done; None: unknown."""
        costs = [
            s.new_figures.flops for s in self.stages if s.new and s.fate is not Fate.REUSED and "tokenize" not in s.kind
        ]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


@dataclass(frozen=True)
class Diff:
    """Runs of two sources: those of both, and the names of those that only one has."""

    runs: list[RunDiff] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    @property
    def changes_science(self) -> bool:
        """Whether any result may differ, appear or go."""
        return bool(self.removed or self.added or any(run.effect is Effect.SCIENCE for run in self.runs))


def compare(old: Sequence[LoadedRecipe], new: Sequence[LoadedRecipe]) -> Diff:
    """Compare the runs of two sources: variants of the same name, or the only run of each.

    Corpora are named by what the recipe says of them, since reviewers do not have the data: a corpus whose files
    changed under the same name is no difference here.

    Raises:
        PdforgeError: a recipe cannot be planned.
    """
    before = {one.variant: one for one in old}
    after = {one.variant: one for one in new}
    if len(before) == len(after) == 1:
        pairs = [(*before.values(), *after.values())]
    else:
        pairs = [(before[variant], after[variant]) for variant in before if variant in after]
    paired = [one for pair in pairs for one in pair]
    return Diff(
        runs=[_compare(one, other) for one, other in pairs],
        removed=[one.name for one in old if not any(one is p for p in paired)],
        added=[one.name for one in new if not any(one is p for p in paired)],
    )


def _compare(old: LoadedRecipe, new: LoadedRecipe) -> RunDiff:
    before, after = _plan(old), _plan(new)
    old_values, new_values = recipe_values(old.recipe), recipe_values(new.recipe)
    return RunDiff(
        name=new.name,
        old=before,
        new=after,
        fields=[
            _field_change(path, (old, old_values, before), (new, new_values, after))
            for path in changed(old_values, new_values)
        ],
        stages=_stage_changes(before, after),
    )


_Side = tuple[LoadedRecipe, dict[str, Any], Plan]


def _field_change(path: FieldPath, old: _Side, new: _Side) -> FieldChange:
    before, after = value_at(old[1], path), value_at(new[1], path)
    pair = _with(old, path, after) or _with(new, path, before) or (old[2], new[2])
    return FieldChange(dotted(path), before, after, _effect(*pair), _changed_kinds(*pair))


def _with(side: _Side, path: FieldPath, value: Any) -> tuple[Plan, Plan] | None:
    """The side's plan, and its plan with that one value; None where the value makes no sense alone."""
    loaded, values, plan = side
    try:
        recipe = Recipe.model_validate(replaced(values, path, value))
        return plan, _plan(LoadedRecipe(recipe, loaded.variant, loaded.source, [], loaded.tree, loaded.suppressions))
    except (ValidationError, PdforgeError):
        return None


def _effect(old: Plan, new: Plan) -> Effect:
    if old.hash != new.hash:
        return Effect.SCIENCE
    return Effect.RESUMABLE if old.directory == new.directory else Effect.RUN


def _changed_kinds(old: Plan, new: Plan) -> list[StageKind]:
    before, after = _by_kind(old), _by_kind(new)
    kinds = dict.fromkeys([*before, *after])
    return [kind for kind in kinds if _identities(before.get(kind, [])) != _identities(after.get(kind, []))]


def _by_kind(plan: Plan) -> dict[StageKind, list[Stage]]:
    """The stages by their kind, those next to the student first: of a chain of teachers several are of one."""
    found: dict[StageKind, list[Stage]] = {}
    for stage in plan.stages:
        found.setdefault(stage.kind, []).insert(0, stage)
    return found


def _identities(stages: list[Stage]) -> list[str]:
    return [stage.identity for stage in stages]


def _stage_changes(before: Plan, after: Plan) -> list[StageChange]:
    old, new = _by_kind(before), _by_kind(after)
    return [
        _stage_change(kind, before, after, *pair)
        for kind in dict.fromkeys([*old, *new])
        for pair in _paired(old.get(kind, []), new.get(kind, []))
    ]


def _paired(old: list[Stage], new: list[Stage]) -> list[tuple[Stage | None, Stage | None]]:
    """Stages of one kind before and after: first those that are the same, then the others from the student upwards."""
    same = {*_identities(old)} & {*_identities(new)}
    known = {stage.identity: stage for stage in old}
    gone, added = ([stage for stage in stages if stage.identity not in same] for stages in (old, new))
    kept = [(known[stage.identity], stage) for stage in new if stage.identity in same]
    return [*kept, *zip_longest(gone, added)]


def _stage_change(kind: StageKind, before: Plan, after: Plan, old: Stage | None, new: Stage | None) -> StageChange:
    if old is None or new is None:
        fate = Fate.ADDED if new else Fate.DROPPED
    elif old.identity != new.identity:
        fate = Fate.AGAIN
    else:
        fate = Fate.REUSED if old.directory == new.directory else Fate.RENAMED
    return StageChange(kind, fate, old, new, _figures(before, old), _figures(after, new))


def _figures(plan: Plan, stage: Stage | None) -> StageFigures:
    return plan.figures.stages[stage.key] if stage else StageFigures.model_construct()


def _plan(loaded: LoadedRecipe) -> Plan:
    """The plan on the smallest machine that its parallelism fits: identities do not depend on where a run is."""
    needed = lcm(*(_processes(part.training) for part in trainings(loaded.recipe)))
    profile = Profile(name="review", processes_per_node=needed)
    (plan,) = make_plans([loaded], profile, Path("runs"), fingerprint_of=written_fingerprint)
    return plan


def _processes(training: Training) -> int:
    spread = training.parallelism
    shard = 1 if spread.data_shard == "auto" else spread.data_shard
    return spread.tensor * spread.pipeline * spread.context * spread.data_replicate * shard
