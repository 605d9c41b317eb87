"""`sweep`: runs that differ in a grid of values, in sets of values that go together, and in seeds."""

import re
from collections.abc import Iterable
from itertools import product
from math import prod
from typing import NamedTuple

from pdforge.diagnostics import Diagnostic, Place, Severity
from pdforge.errors import RecipeError
from pdforge.recipe.schema import COMPOSITION, DISCRIMINATORS
from pdforge.recipe.tree import FIELD, Entry, Mapping, Node, Scalar, Sequence, leaves, nested, plain
from pdforge.recipe.units import check_name

MOST_RUNS = 250
"""Of one recipe. More is a mistake in a grid rather than a study."""

_KEYS = {"grid": "grid: {field: [values]}", "paired": "paired: [{field: value}]", "seeds": "seeds: 3, or a list"}


class Change(NamedTuple):
    """What one point of a sweep changes, and how it is called."""

    name: str
    tree: Mapping


def split_sweep(root: Mapping) -> tuple[Mapping, list[list[Change]]]:
    """The recipe without `sweep`, and the changes of every run, each a list to be laid over it in order.

    Raises:
        RecipeError: `sweep` is not well-formed, two of its runs have one name, or there are too many.
    """
    entry = root.entries.get("sweep")
    body = Mapping({key: e for key, e in root.entries.items() if key != "sweep"}, root.place)
    if entry is None or (isinstance(entry.node, Scalar) and entry.node.value is None):
        return body, []
    node = entry.node
    if not isinstance(node, Mapping):
        raise _error("sweep must be a mapping", entry.place, f"with {', '.join(_KEYS)}")
    for key, each in node.entries.items():
        if key not in _KEYS:
            raise _error(f"sweep has no key {key!r}", each.key, f"its keys are {', '.join(_KEYS)}")
    axes: list[list[Change]] = []
    if "grid" in node.entries:
        axes += _grid(node.entries["grid"])
    if "paired" in node.entries:
        axes.append(_paired(node.entries["paired"]))
    if "seeds" in node.entries:
        axes.append(_seeds(node.entries["seeds"]))
    for axis in axes:
        _require_different(axis)
    if prod(map(len, axes)) > MOST_RUNS:
        raise _error(f"the sweep makes {prod(map(len, axes))} runs; at most {MOST_RUNS}", entry.key, "split it")
    return body, [list(changes) for changes in product(*axes)] if axes else []


def _require_different(axis: list[Change]) -> None:
    """Refuse one value in two spellings, 1 and 1.0: it would make one run twice."""
    values = [plain(change.tree) for change in axis]
    for at, value in enumerate(values):
        first = values.index(value)
        if first != at:
            _, place = next(leaves(axis[at].tree), ((), axis[at].tree.place))
            raise _error(f"{axis[first].name} and {axis[at].name} of the sweep are the same", place, "leave one out")


def named_runs(variants: dict[str, Mapping], sweep: list[list[Change]], place: Place) -> dict[str, list[Mapping]]:
    """Every run's name, and the partial recipes that make it: its variant's, then its point's of the sweep.

    Raises:
        RecipeError: a name is too long, or two runs have one.
    """
    if not variants and not sweep:
        return {}
    points = sweep or [[]]
    number = len(points) * max(1, len(variants))
    if number > MOST_RUNS:
        raise _error(f"variants and sweep make {number} runs; at most {MOST_RUNS}", place, "split it")
    runs: dict[str, list[Mapping]] = {}
    for variant, point in product([[Change(*each)] for each in variants.items()] or [[]], points):
        parts = [*variant, *point]
        name = "-".join(part.name for part in parts)
        if name in runs:
            raise _error(f"two runs of the sweep are named {name}", place, "give them a `name` in `paired`")
        try:
            check_name(name)
        except ValueError as error:
            raise _error(f"a run of the sweep is named {name!r}; it must be {error}", place, _SHORTER) from error
        runs[name] = [part.tree for part in parts]
    return runs


_SHORTER = "list the values in `paired`, where each set can have a `name`"


def _grid(entry: Entry) -> list[list[Change]]:
    if not isinstance(entry.node, Mapping) or not entry.node.entries:
        raise _error("grid must be a mapping of fields to lists", entry.place, _KEYS["grid"])
    axes = []
    for field, values in entry.node.entries.items():
        if not isinstance(values.node, Sequence) or not values.node.items:
            raise _error(f"{field} must be a list of values", values.place, _KEYS["grid"])
        axes.append([Change(_label(field, v), _change(field, values.key, v)) for v in values.node.items])
    return axes


def _paired(entry: Entry) -> list[Change]:
    if not isinstance(entry.node, Sequence) or not entry.node.items:
        raise _error("paired must be a list of mappings", entry.place, _KEYS["paired"])
    return [_set(node, entry.place) for node in entry.node.items]


def _set(node: Node, place: Place) -> Change:
    """One set of values that go together, called by its `name`, else by its values."""
    if not isinstance(node, Mapping):
        raise _error("paired must be a list of mappings", getattr(node, "place", place), _KEYS["paired"])
    fields = {key: entry for key, entry in node.entries.items() if key != "name"}
    tree = Mapping({}, node.place)
    for field, entry in fields.items():
        tree = _both(tree, _change(field, entry.key, entry.node))
    if "name" not in node.entries:
        if not fields:
            raise _error("a set of values is empty", node.place, "give it a `name` if it is the recipe as it stands")
        return Change("-".join(_label(field, entry.node) for field, entry in fields.items()), tree)
    name = node.entries["name"]
    try:
        return Change(check_name(str(_scalar(name.node))), tree)
    except ValueError as error:
        raise _error(f"a set of values is named {_scalar(name.node)!r}; it must be {error}", name.place) from error


def _seeds(entry: Entry) -> list[Change]:
    node = entry.node
    if isinstance(node, Scalar) and type(node.value) is int and 0 < node.value <= MOST_RUNS:
        seeds: Iterable[Node] = [Scalar(seed, node.place) for seed in range(node.value)]
    elif isinstance(node, Sequence) and node.items:
        seeds = node.items
    else:
        raise _error("seeds must be a number of seeds or a list of them", entry.place, _KEYS["seeds"])
    return [Change(f"seed-{_text(seed)}", _change("training.seed", entry.key, seed)) for seed in seeds]


def _change(field: str, key: Place, value: Node) -> Mapping:
    if not re.fullmatch(FIELD, field) or field.split(".", maxsplit=1)[0] in COMPOSITION:
        raise _error(f"a sweep cannot set {field!r}", key, "name a field, such as objective.temperature")
    return nested(field, Entry(key, value))


def _both(one: Mapping, other: Mapping) -> Mapping:
    """Two partial recipes in one. Unlike `merge` no kind replaces another: nothing stands below yet."""
    entries = dict(one.entries)
    for key, entry in other.entries.items():
        below, node = entries[key].node if key in entries else None, entry.node
        if isinstance(below, Mapping) and isinstance(node, Mapping):
            node = _both(below, node)
        entries[key] = Entry(entry.key, node)
    return Mapping(entries, other.place)


def _label(field: str, value: Node) -> str:
    """`temperature-2.0`: the field's last word and the value as a name can hold it."""
    return f"{_word(field.rsplit('.', maxsplit=1)[-1])}-{_text(value)}"


def _text(value: Node) -> str:
    """A value in a name: a scalar as it stands, of a mapping its kind."""
    if isinstance(value, Mapping):
        kinds = [_scalar(value.entries[key].node) for key in DISCRIMINATORS if key in value.entries]
        return _word(str(kinds[0] if kinds else "set"))
    if isinstance(value, Sequence):
        return "-".join(map(_text, value.items)) or "none"
    return _word("none" if value.value is None else str(value.value))


def _scalar(node: Node) -> object:
    return node.value if isinstance(node, Scalar) else None


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower().replace("%", "pct")).rstrip("-.") or "x"


def _error(message: str, place: Place, helping: str = "") -> RecipeError:
    return RecipeError([Diagnostic("PD009", Severity.ERROR, message, place, helping)])
