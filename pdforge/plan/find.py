"""From what a user names to plans: a recipe (planned now), or the directory of a run (its `plan.json`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from pdforge.errors import UsageError
from pdforge.layout import RunDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes


def find_plans(
    target: str,
    *,
    root: Path,
    profile: Callable[[], Profile],
    variants: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> list[Plan]:
    """The plan of a run, where `target` is its directory or its name below `root`; else those of the recipe `target`.

    `profile` is called for a recipe only.

    Raises:
        UsageError: the run's plan is damaged, or variants and overrides are given for a run.
        RecipeError, EnvironmentFault, StoreError: as `load_recipes` and `make_plans`.
    """
    for folder in (Path(target), root / target):
        if RunDirectory(folder).plan.is_file():
            if variants or overrides:
                raise UsageError(f"{target} is a run: its variant and its fields are fixed", remedy="name the recipe")
            return [read_plan(folder)]
    return make_plans(load_recipes(target, variants=variants, overrides=overrides), profile(), root)


def read_plan(folder: Path) -> Plan:
    """The plan of the run in `folder`.

    Raises:
        UsageError: there is none, or it is not one that this version of pdforge wrote.
    """
    file = RunDirectory(folder).plan
    try:
        return Plan.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{folder} is not a run: no {file.name} there", remedy="see `pdforge ls`") from error
    except (ValidationError, UnicodeDecodeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UsageError(
            f"{file} is damaged or of another version of pdforge: {reason}",
            remedy="name the recipe instead: its plan is made again",
        ) from error
