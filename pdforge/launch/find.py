"""From what a user names on the command line to runs and stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from pdforge.errors import UsageError
from pdforge.layout import RunDirectory, require_folder, storage_root
from pdforge.plan.model import Plan, Stage


def root_of(targets: Sequence[str], option: Path | None, cluster: str = "local") -> Path:
    """The storage root: as `storage_root`, but without an option the path of a run says where its root is.

    Raises:
        UsageError: there is no such cluster profile.
        RecipeError: findings in a file of profiles.
    """
    from pdforge.plan.clusters import profile_root  # noqa: PLC0415 - the recipe language: not for `ls` and `--help`

    if option is None:
        for target in targets:
            if RunDirectory(Path(target)).plan.is_file():
                return Path(target).resolve().parent
    return storage_root(option, profile_root(cluster))


def find_targets(
    targets: Sequence[str],
    root: Path,
    *,
    variants: Sequence[str] = (),
    overrides: Sequence[str] = (),
    cluster: str = "local",
    processes: int | None = None,
) -> list[Plan]:
    """The plans of all that the targets name (recipes, or runs), each run once.

    Raises:
        UsageError: a run lies below another storage root, or its plan cannot be read.
        RecipeError: findings in a recipe.
    """
    from pdforge.plan.clusters import find_profile  # noqa: PLC0415 - the recipe language: not for `ls` and `--help`
    from pdforge.plan.find import find_plans  # noqa: PLC0415

    profile = cache(lambda: find_profile(cluster, processes))  # a run has one: no scheduler is asked for it
    plans: dict[str, Plan] = {}
    for target in targets:
        run = Path(target)
        if RunDirectory(run).plan.is_file() and run.resolve().parent != root.resolve():
            raise UsageError(f"the run {target} is not below {root}", remedy=f"add --root {run.resolve().parent}")
        for plan in find_plans(target, root=root, profile=profile, variants=variants, overrides=overrides):
            plans[plan.directory] = plan
    return list(plans.values())


def find_runs(root: Path) -> list[RunDirectory]:
    """The runs below a storage root, by name.

    Raises:
        UsageError: the root is no folder.
    """
    require_folder(root)
    return [RunDirectory(path.parent) for path in sorted(root.glob("*/plan.json"))]


def readable_plans(root: Path, warn: Callable[[str], None]) -> list[Plan]:
    """The plans of the runs below a storage root, each run once; `warn` is told of those that cannot be read.

    Raises:
        UsageError: the root is no folder.
    """
    from pdforge.plan.find import read_plan  # noqa: PLC0415 - the recipe language: not for `--help`

    plans: dict[str, Plan] = {}
    for run in find_runs(root):
        try:
            plan = read_plan(run.path)
            plans[plan.directory] = plan
        except UsageError as error:  # one damaged run must not hide the others
            warn(f"warning: {error.message}")
        except OSError as error:
            warn(f"warning: {run.plan} cannot be read: {error.strerror}")
    return list(plans.values())


def find_stage(stages: Sequence[Stage], wanted: str) -> Stage:
    """The stage that `wanted` names: its title, key, kind or identity, or an unambiguous part of its title.

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
                f"stage {wanted!r} may be " + " or ".join(f"{stage.title} ({stage.key})" for stage in matches),
                remedy="give the whole title, or the key",
            )
    raise UsageError(f"no stage {wanted!r}", remedy="stages: " + ", ".join(repr(stage.title) for stage in stages))
