"""One tree out of several: `extends`, `variants`, `--set`. The nearest wins, and every value keeps its own place."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from pdforge.diagnostics import Diagnostic, Place, Severity
from pdforge.errors import RecipeError, UsageError
from pdforge.recipe.gallery import find_recipe
from pdforge.recipe.reader import Document, read_file, read_value
from pdforge.recipe.schema import COMPOSITION, DISCRIMINATORS, default_tag
from pdforge.recipe.tree import FIELD, Entry, FieldPath, Mapping, Node, Scalar, Sequence, nested
from pdforge.recipe.units import check_name


def merge(base: Node, over: Node, path: FieldPath = ()) -> Node:
    """`over` laid on `base`: mappings merge, everything else replaces.

    A mapping that names another kind replaces too: the keys of the old kind mean nothing to the new one. A mapping
    whose keys are numbers of a list's items changes those: `teachers.1.weight`.
    """
    if isinstance(base, Sequence) and isinstance(over, Mapping) and _numbers(over, base):
        items = list(base.items)
        for key, entry in over.entries.items():
            items[int(key)] = merge(items[int(key)], entry.node, (*path, int(key)))
        return Sequence(tuple(items), base.place)
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)) or _other_kind(base, over, path):
        return over
    entries = dict(base.entries)
    for key, entry in over.entries.items():
        below = entries.get(key)
        entries[key] = Entry(entry.key, merge(below.node, entry.node, (*path, key)) if below else entry.node)
    return Mapping(entries, over.place)


def _numbers(over: Mapping, base: Sequence) -> bool:
    return bool(over.entries) and all(key.isdecimal() and int(key) < len(base.items) for key in over.entries)


def _other_kind(base: Mapping, over: Mapping, path: FieldPath) -> bool:
    for key in DISCRIMINATORS:
        if key in over.entries:
            new = _value(over.entries[key].node)
            old = _value(base.entries[key].node) if key in base.entries else default_tag(path, key)
            return new != old
    return False


def _value(node: Node) -> object:
    return node.value if isinstance(node, Scalar) else node


class Composer:
    """Resolves `extends`; remembers every document it read by its name."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self._done: dict[str, Mapping] = {}

    def compose(self, document: Document, directory: Path, open_files: tuple[str, ...] = ()) -> Mapping:
        """The document with everything that it extends below it.

        Raises:
            RecipeError: it is no mapping, extends what is no readable recipe, or itself.
        """
        self.documents[document.name] = document
        root = document.root
        if not isinstance(root, Mapping):
            raise _error("PD005", "a recipe must be a mapping", root.place, "start with `recipe: name`")
        below: Node = Mapping({}, root.place)
        for target in _targets(root):
            below = merge(below, self._extended(target, directory, open_files))
        own = Mapping({key: entry for key, entry in root.entries.items() if key != "extends"}, root.place)
        merged = merge(below, own)
        assert isinstance(merged, Mapping)
        return merged

    def _extended(self, target: Scalar, directory: Path, open_files: tuple[str, ...]) -> Mapping:
        written = str(target.value)
        try:
            near = Path(os.path.normpath(directory / written))
            path = near if near.is_file() else find_recipe(written)
            real = str(path.resolve())
            if real in open_files:
                raise _error("PD007", f"extends {written!r}, which extends this file", target.place, "break the cycle")
            if real not in self._done:
                document = read_file(path, str(path))
                self._done[real] = self.compose(document, path.parent, (*open_files, real))
        except UsageError as error:
            raise _error("PD007", f"cannot extend {written!r}: {error.message}", target.place, error.remedy) from error
        except (ValueError, OSError) as error:  # a path with a NUL, or too long for a file system
            raise _error("PD007", f"cannot extend {written!r}: {error}", target.place) from error
        return self._done[real]


def _targets(root: Mapping) -> Iterable[Scalar]:
    if "extends" not in root.entries:
        return []
    entry = root.entries["extends"]
    nodes = entry.node.items if isinstance(entry.node, Sequence) else (entry.node,)
    targets = [node for node in nodes if isinstance(node, Scalar) and isinstance(node.value, str) and node.value]
    if len(targets) != len(nodes):
        raise _error("PD007", "extends must be a path or a list of paths", entry.place, "extends: ../base.yaml")
    return targets


def split_variants(root: Mapping) -> tuple[Mapping, dict[str, Mapping]]:
    """The recipe without `variants`, and what each variant changes.

    Raises:
        RecipeError: `variants` is no mapping of names to partial recipes.
    """
    entry = root.entries.get("variants")
    body = Mapping({key: e for key, e in root.entries.items() if key != "variants"}, root.place)
    if entry is None or (isinstance(entry.node, Scalar) and entry.node.value is None):
        return body, {}
    if not isinstance(entry.node, Mapping):
        raise _error("PD008", "variants must be a mapping", entry.place, "variants: {name: {what differs}}")
    variants = {}
    for name, variant in entry.node.entries.items():
        try:
            check_name(name)
        except ValueError as error:
            raise _error("PD008", f"a variant is named {name!r}; it must be {error}", variant.key) from error
        node = variant.node
        if isinstance(node, Scalar) and node.value is None:
            node = Mapping({}, variant.key)
        if not isinstance(node, Mapping):
            raise _error("PD008", f"variant {name} must be a mapping", variant.place, "write the fields that differ")
        for key in COMPOSITION:
            if key in node.entries:
                raise _error("PD008", f"a variant cannot hold {key}", node.entries[key].key, "write it at the top")
        variants[name] = node
    return body, variants


def read_override(text: str) -> Mapping:
    """The partial recipe that `--set FIELD=VALUE` stands for.

    Raises:
        UsageError: it is not of that form.
        RecipeError: the value is not YAML.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not re.fullmatch(FIELD, name):
        raise UsageError(f"--set {text!r} is not FIELD=VALUE", remedy="for example --set objective.temperature=2")
    top = name.split(".")[0]
    if top in COMPOSITION:
        raise UsageError(f"--set cannot change {top}", remedy="set a field; --variant picks a variant")
    place = Place(f"--set {name}")
    return nested(name, Entry(place, read_value(value, place)))


def _error(code: str, message: str, place: Place, helping: str = "") -> RecipeError:
    return RecipeError([Diagnostic(code, Severity.ERROR, message, place, helping)])
