"""From what a user names on the command line to plans: a recipe, or the directory of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from pdforge.errors import UsageError
from pdforge.layout import RunDirectory
from pdforge.plan.model import Plan, Stage
from pdforge.plan.profile import Profile, find_profile


def find_plans(
    target: str,
    root: Path,
    *,
    variants: Sequence[str] = (),
    overrides: Sequence[str] = (),
    profile: str = "local",
    processes: int | None = None,
) -> list[Plan]:
    """The plans of a recipe, or the one plan of a run: a name below `root`, or a path of a run directory there.

    Raises:
        UsageError: the run's plan cannot be read, or the run lies below another storage root.
        RecipeError: findings in the recipe.
    """
    run = next((run for run in (RunDirectory(root / target), RunDirectory(Path(target))) if run.plan.is_file()), None)
    if run is None:
        where = find_profile(profile, processes)
    return _plans_of_recipe(target, root, variants, overrides, where)
    if run.path.resolve().parent != root.resolve():
        raise UsageError(f"the run {target} is not below {root}", remedy=f"add --root {run.path.resolve().parent}")
    if variants or overrides:
        raise UsageError(f"{target} is a run, whose plan is made", remedy="use --variant and --set with a recipe")
    return [read_plan(run)]


def read_plan(run: RunDirectory) -> Plan:
    """The plan of a run.

    Raises:
        UsageError: it is missing or damaged, or of another version.
    """
    try:
        return Plan.model_validate_json(run.plan.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{run.plan}: not a plan of this version of pdforge: {reason}", remedy="name the recipe instead of the run"
        ) from error


def find_runs(root: Path) -> list[RunDirectory]:
    """The runs below a storage root, by name."""
    return [RunDirectory(path.parent) for path in sorted(root.glob("*/plan.json"))]


def find_stage(stages: Sequence[Stage], wanted: str) -> Stage:
    """The stage that `wanted` names: its title, key, kind, or an unambiguous part of the title.

    Raises:
        UsageError: none, or more than one.
    """
    for matches in (
        [stage for stage in stages if wanted in (stage.title, stage.key, stage.kind, stage.identity)],
        [stage for stage in stages if wanted in stage.title],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UsageError(
                f"stage {wanted!r} may be " + " or ".join(repr(stage.title) for stage in matches),
                remedy="give the whole title, in quotes",
            )
    raise UsageError(f"no stage {wanted!r}", remedy="stages: " + ", ".join(repr(stage.title) for stage in stages))


def _plans_of_recipe(
    source: str, root: Path, variants: Sequence[str], overrides: Sequence[str], profile: Profile
) -> list[Plan]:
    from pdforge.plan.build import make_plans  # noqa: PLC0415 - the YAML library and the planner: not for runs
    from pdforge.recipe.load import load_recipes  # noqa: PLC0415

    return make_plans(load_recipes(source, variants=variants, overrides=overrides), profile, root)
