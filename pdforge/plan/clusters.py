"""`clusters.yaml`: a mapping from names to cluster profiles, read like a recipe, with positions."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from pdforge.diagnostics import Diagnostic, Severity
from pdforge.errors import RecipeError, UsageError
from pdforge.plan.profile import Profile, local_profile, slurm_profile
from pdforge.recipe.gallery import CLUSTERS
from pdforge.recipe.reader import read_file
from pdforge.recipe.tree import Mapping, Scalar, plain
from pdforge.text import closest

BUILT_IN = "built in"


def cluster_files() -> list[Path]:
    """The files that hold profiles, the one that counts first: the user's, then that of the repository around here."""
    here = Path.cwd()
    above = next((folder / CLUSTERS for folder in (here, *here.parents) if (folder / CLUSTERS).is_file()), None)
    return [file for file in (_of_the_user(), above) if file is not None and file.is_file()]


def _of_the_user() -> Path | None:
    """None where nobody knows a home directory: in a container, whose user may have no name."""
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pdforge" / CLUSTERS
    except RuntimeError:
        return None


def all_profiles() -> dict[str, tuple[Profile, str]]:
    """Every profile by name, with where it is written: `BUILT_IN`, or a file. No scheduler is asked.

    Raises:
        RecipeError: findings in a file.
        UsageError: a file cannot be read.
    """
    found = {"local": (local_profile(), BUILT_IN), "slurm": (slurm_profile(), BUILT_IN)}
    for file in reversed(cluster_files()):
        found.update({name: (profile, str(file)) for name, profile in read_clusters(file).items()})
    return found


def find_profile(name: str, processes: int | None = None) -> Profile:
    """The profile of that name, with `processes` for a training stage where it is given.

    What the built-in `slurm` has to offer is asked of the scheduler.

    Raises:
        UsageError: there is none, or the processes do not fit it.
        RecipeError: findings in a file of profiles.
        EnvironmentFault: the scheduler does not answer, where it is asked.
    """
    profile, written = _named(name)
    if written == BUILT_IN and profile.executor == "slurm":
        from pdforge.plan.partition import as_scheduled  # noqa: PLC0415 - starts processes, for this profile only

        profile = as_scheduled(profile)
    return profile.with_processes(processes)


def profile_root(name: str) -> str | None:
    """The storage root that the profile of that name says; None where it says nothing.

    Raises:
        UsageError: there is no such profile.
        RecipeError: findings in a file of profiles.
    """
    return _named(name)[0].root


def _named(name: str) -> tuple[Profile, str]:
    profiles = all_profiles()
    if name not in profiles:
        close = closest(name, profiles)
        helping = f"did you mean {close}? " if close else ""
        raise UsageError(f"no cluster profile {name!r}", remedy=f"{helping}known profiles: {', '.join(profiles)}")
    return profiles[name]


def read_clusters(file: Path) -> dict[str, Profile]:
    """The profiles of one file.

    Raises:
        RecipeError: findings, of all profiles together.
        UsageError: it cannot be read.
    """
    document = read_file(file, str(file))
    root = document.root
    if isinstance(root, Scalar) and root.value is None:
        return {}
    findings: list[Diagnostic] = []
    profiles: dict[str, Profile] = {}
    if not isinstance(root, Mapping):
        message = "a file of cluster profiles is a mapping from names to profiles"
        raise RecipeError([Diagnostic("PD005", Severity.ERROR, message, root.place)])
    for name, entry in root.entries.items():
        if not isinstance(entry.node, Mapping):
            message = f"profile {name} must be a mapping"
            findings.append(Diagnostic("PD005", Severity.ERROR, message, entry.place, "write `executor: slurm` in it"))
            continue
        if "name" in entry.node.entries:
            message = f"profile {name} has no key 'name'"
            place = entry.node.entries["name"].key
            findings.append(Diagnostic("PD003", Severity.ERROR, message, place, "its key in the file is its name"))
            continue
        try:
            profiles[name] = Profile.model_validate({"name": name, **plain(entry.node)})
        except ValidationError as error:
            from pdforge.recipe.messages import diagnose  # noqa: PLC0415 - only a profile with mistakes needs it

            findings += diagnose(error, entry.node, Profile, f"profile {name}")
    if findings:
        raise RecipeError(sorted(findings, key=lambda d: (d.place, d.code, d.field)))
    return profiles
