"""Where recipes come from: files, and the gallery that ships with pdforge."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pdforge
from pdforge.errors import EnvironmentFault, UsageError
from pdforge.text import closest


def gallery_directory() -> Path:
    """The gallery: inside an installed package, else of the checkout.

    Raises:
        EnvironmentFault: this copy of pdforge has neither.
    """
    package = Path(pdforge.__file__).parent
    for directory in (package / "_data" / "recipes", package.parent / "recipes"):
        if directory.is_dir():
            return directory
    raise EnvironmentFault("this installation of pdforge has no recipe gallery", remedy="reinstall pdforge")


def gallery_names() -> list[str]:
    """Names of the gallery's recipes, as commands take them: `pd_star`, `folder/name`."""
    directory = gallery_directory()
    files = (path for path in directory.rglob("*.yaml") if is_recipe(path))
    return sorted(path.relative_to(directory).with_suffix("").as_posix() for path in files)


CLUSTERS = "clusters.yaml"
"""Name of a file of cluster profiles, which may lie among recipes."""


def is_recipe(path: Path) -> bool:
    """Whether a file may be a recipe by its name: no part for `extends` (`_base.yaml`), and no cluster profiles."""
    return path.suffix in (".yaml", ".yml") and not path.name.startswith("_") and path.name != CLUSTERS


def find_recipe(source: str) -> Path:
    """The file that `source` means: a path, else a name in the gallery with or without `.yaml`.

    Raises:
        UsageError: there is none.
    """
    path = Path(source)
    if _is_file(path):
        return path
    name = source.removesuffix(".yaml").removesuffix(".yml")
    names = gallery_names()
    if name in names:
        return gallery_directory() / f"{name}.yaml"
    if _is_directory(path):
        raise UsageError(f"{source} is a directory", remedy="name a recipe file in it")
    close = closest(PurePosixPath(name).name, names)
    known = f"did you mean {close}? " if close else ""
    raise UsageError(
        f"no recipe {_short(source)}: neither a file nor in the gallery",
        remedy=f"{known}`pdforge recipes` lists the gallery",
    )


def _is_file(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):  # a name that no file can have: too long, or with a NUL
        return False


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _short(source: str) -> str:
    return repr(source if len(source) <= 80 else source[:77] + "...")
