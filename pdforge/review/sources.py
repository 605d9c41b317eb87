"""What may be compared: recipe files, gallery names, files of a git revision (`main:recipes/x.yaml`), runs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pdforge.diagnostics import Place
from pdforge.errors import EnvironmentFault, RecipeError, UsageError
from pdforge.layout import RunDirectory
from pdforge.plan.find import read_plan
from pdforge.recipe.load import LoadedRecipe, load_recipes
from pdforge.recipe.suppress import Suppressions
from pdforge.recipe.tree import Mapping


def load_sides(
    old: str, new: str, *, root: Path, variants: Sequence[str] = (), overrides: Sequence[str] = ()
) -> tuple[list[LoadedRecipe], list[LoadedRecipe]]:
    """The recipes that two sources stand for; overrides apply to `new`. A run is compared with its own variant only.

    Raises:
        UsageError: a source is none of these, or variants or overrides are given for a run.
        RecipeError: findings.
        EnvironmentFault: it names a git revision, and there is no git here.
    """
    runs = [_run(source, root) for source in (old, new)]
    for source, run, fixed in zip((old, new), runs, (variants, [*variants, *overrides]), strict=True):
        if run and fixed:
            raise UsageError(f"{source} is a run: its variant and its fields are fixed", remedy="name the recipe")
    theirs = [run.variant for run in runs if run and run.variant]
    chosen = variants or theirs[:1]
    before, after = runs
    return (
        [before] if before else _load(old, chosen, ()),
        [after] if after else _load(new, chosen, overrides),
    )


def _run(source: str, root: Path) -> LoadedRecipe | None:
    """The recipe of a run, where `source` is its directory or its name below the root."""
    for folder in (Path(source), root / source):
        if RunDirectory(folder).plan.is_file():
            plan = read_plan(folder)
            return LoadedRecipe(plan.recipe, plan.variant, source, [], Mapping({}, Place(source)), Suppressions())
    return None


def _load(source: str, variants: Sequence[str], overrides: Sequence[str]) -> list[LoadedRecipe]:
    revision, colon, path = source.partition(":")
    if not colon or Path(source).exists():
        return load_recipes(source, variants=variants, overrides=overrides)
    return _load_revision(revision, path, variants, overrides)


def _load_revision(revision: str, path: str, variants: Sequence[str], overrides: Sequence[str]) -> list[LoadedRecipe]:
    """The recipe at `path` in a revision, with what it extends there: from a temporary copy of its YAML files."""
    top = Path(_git("rev-parse", "--show-toplevel").rstrip("\n"))
    if path.startswith(("./", "../")):  # as git itself reads REVISION:./PATH
        path = os.path.relpath(Path.cwd() / path, top)
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision or 'HEAD'}^{{commit}}").strip()
    with tempfile.TemporaryDirectory(prefix="pdforge-") as temporary:
        folder = Path(os.path.realpath(temporary))
        # An index of its own: neither the user's index nor the working tree is touched.
        index = {"GIT_INDEX_FILE": str(folder / "index")}
        _git("read-tree", commit, cwd=top, **index)
        names = _git("ls-files", "-z", "--", "*.yaml", "*.yml", cwd=top, **index)
        _git("checkout-index", "-z", "--stdin", f"--prefix={folder}/tree/", cwd=top, stdin=names, **index)
        file = folder / "tree" / path
        if not file.is_file():
            raise UsageError(f"{revision} has no recipe {path!r}", remedy=f"`git ls-tree -r --name-only {revision}`")
        try:
            loaded = load_recipes(str(file), variants=variants, overrides=overrides)
        except RecipeError as error:
            before = f"{folder}/tree/"
            raise RecipeError(
                [
                    replace(d, place=d.place._replace(file=d.place.file.replace(before, f"{revision}:")))
                    for d in error.diagnostics
                ]
            ) from error
    return [one._replace(source=f"{revision}:{path}") for one in loaded]


def _git(*arguments: str, cwd: Path | None = None, stdin: str = "", **environment: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            input=stdin.encode("utf-8", "surrogateescape"),
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise EnvironmentFault("git is not installed", remedy="a revision's recipe is read with git") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or f"no such revision ({arguments[-1]})"
        raise UsageError(f"git {arguments[0]}: {reason}", remedy="name REVISION:PATH inside a git repository")
    return done.stdout.decode("utf-8", "surrogateescape")
