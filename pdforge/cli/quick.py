"""How a short command stays short: what a process can leave out at its start and at its end.

`benchmarks/recipes.py` measures it; each of these is a twentieth to a fifth of `pdforge validate`.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

COMMANDS = ("validate", "show", "explain", "recipes", "new", "schema", "diff", "plan")
"""Commands that start no threads and leave nothing to functions that run at the end of a process."""

DIRECT = {"validate": ("pdforge.cli.check", "check_sources"), "plan": ("pdforge.cli.planning", "plan_recipes")}
"""Where the work of commands is that are mostly called with names alone: module and function."""

_FIRST = "pdforge.recipe.models"
"""Imported from here and not from a dozen imports deep, where each of its many classes makes the interpreter map one
more piece of stack for a moment (16 KiB, CPython 3.11): 700 calls of the system."""

_COLLECT_AFTER = 50_000
"""New objects that start a collection: more than building the models and reading a recipe make."""
_PLUGIN_LOADER = "pydantic.plugin._loader"


def names_only(arguments: list[str]) -> bool:
    """Whether they are a command of `DIRECT` and names, no option among them: nothing that typer has to parse."""
    return len(arguments) > 1 and arguments[0] in DIRECT and not any(a.startswith("-") for a in arguments[1:])


def direct(name: str) -> Callable[[Sequence[str]], int]:
    """What does the work of a command of `DIRECT`: takes names, returns the exit code."""
    module, function = DIRECT[name]
    with importing():
        importlib.import_module(_FIRST)
        found: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
    return found


@contextmanager
def importing() -> Iterator[None]:
    """No garbage collection while modules are imported: they make many objects and no garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        gc.enable()


def without_plugins() -> None:
    """No pydantic plugins: it looks for them in the metadata of every installed package.

    The variable spares the look. The module in place of pydantic's own spares what that imports all the same, and is
    unused should pydantic rename its own.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    loader = ModuleType(_PLUGIN_LOADER, "Finds no plugins.")
    loader.get_plugins = tuple  # type: ignore[attr-defined]
    sys.modules.setdefault(_PLUGIN_LOADER, loader)


def leave(ending: SystemExit) -> NoReturn:
    """End the process at once, as the system does it: not one object after the other.

    For `COMMANDS`.

    Raises:
        SystemExit: `ending`, where it is no number, or the last output cannot be written.
    """
    code = 0 if ending.code is None else ending.code
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        raise ending from None
    if not isinstance(code, int):
        raise ending
    os._exit(code)
