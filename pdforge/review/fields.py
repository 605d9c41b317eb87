"""The fields in which two resolved recipes differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pdforge.recipe.schema import DISCRIMINATORS

Path = tuple[str, ...]

ABSENT = None
"""What a field is on a side that does not have it: optional parts of a recipe resolve to null."""


def changed(old: dict[str, Any], new: dict[str, Any], path: Path = ()) -> Iterator[Path]:
    """Paths of the differing fields of two recipes as JSON values, in the recipe's order.

    A mapping that names another kind is one change: its fields mean nothing to the old one.
    """
    for key in dict.fromkeys([*old, *new]):
        before, after, here = old.get(key), new.get(key), (*path, key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict) and _same_kind(before, after):
            yield from changed(before, after, here)
        else:
            yield here


def value_at(values: dict[str, Any], path: Path) -> Any:
    """The value at a path; `ABSENT` where there is none."""
    node: Any = values
    for key in path:
        node = node.get(key) if isinstance(node, dict) else ABSENT
    return node


def replaced(values: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of the recipe with another value at a path."""
    key, *rest = path
    inner = replaced(values.get(key) or {}, tuple(rest), value) if rest else value
    return {**values, key: inner}


def _same_kind(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(before.get(key) == after.get(key) for key in DISCRIMINATORS)
