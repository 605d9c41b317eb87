"""A YAML document as a tree in which every key and value knows where it was written."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pdforge.diagnostics import Place

FieldPath = tuple[str | int, ...]
"""Keys and list indices from the root: `("objective", "alpha", "peak")`."""

FIELD = r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*"
"""Pattern: how a field is named in `--set` and in a sweep: `objective.alpha.peak`."""


class Scalar(NamedTuple):
    """Text, number, truth value or null."""

    value: str | int | float | bool | None
    place: Place


class Sequence(NamedTuple):
    """A list."""

    items: "tuple[Node, ...]"
    place: Place


class Mapping(NamedTuple):
    """A mapping; keys are unique text, in the order written."""

    entries: "dict[str, Entry]"
    place: Place


Node = Scalar | Sequence | Mapping


class Entry(NamedTuple):
    """A key and its value."""

    key: Place
    node: Node

    @property
    def place(self) -> Place:
        """Where to point when the value is wrong: at a scalar itself, else at its key."""
        return self.node.place if isinstance(self.node, Scalar) else self.key


def plain(node: Node) -> Any:
    """The tree as dicts, lists and scalars."""
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {key: plain(entry.node) for key, entry in node.entries.items()}


def locate(root: Node, path: FieldPath) -> tuple[FieldPath, Place, Node]:
    """The part of `path` that is written in the tree, where that is, and what is there.

    A field that nobody wrote (a default, or a missing one) is located at its nearest written parent.
    """
    node, place = root, root.place
    for depth, part in enumerate(path):
        if isinstance(node, Mapping) and part in node.entries:
            entry = node.entries[str(part)]
            node, place = entry.node, entry.place
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            place = node.place
        else:
            return path[:depth], place, node
    return path, place, node


def leaves(node: Node, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Place]]:
    """Every scalar, list and empty mapping with its path and place."""
    if isinstance(node, Mapping) and node.entries:
        for key, entry in node.entries.items():
            yield from leaves(entry.node, (*path, key))
    else:
        yield path, node.place


def dotted(path: FieldPath) -> str:
    """`objective.alpha.peak`."""
    return ".".join(str(part) for part in path)


def path_of(text: str) -> FieldPath:
    """The path that `dotted` wrote; `evaluate.tasks.0.task` counts in a list."""
    return tuple(int(part) if part.isdigit() else part for part in text.split("."))


def nested(field: str, entry: Entry) -> Mapping:
    """The partial recipe in which the field has this value; all of it is where the entry's key is."""
    *parents, last = field.split(".")
    tree = Mapping({last: entry}, entry.key)
    for part in reversed(parents):
        tree = Mapping({part: Entry(entry.key, tree)}, entry.key)
    return tree
