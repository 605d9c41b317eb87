"""YAML text → tree. The recipe language is YAML 1.2 without anchors, aliases, tags, merge keys and repeated keys."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamStartEvent,
)
from ruamel.yaml.reader import ReaderError

from pdforge.diagnostics import Diagnostic, Place, Severity
from pdforge.errors import RecipeError, UsageError
from pdforge.recipe.events import events, kind_of
from pdforge.recipe.tree import Entry, Mapping, Node, Scalar, Sequence

LARGEST_FILE = 256_000
"""Bytes. A recipe is written by people; anything larger is another file."""
MOST_VALUES = 10_000
"""Keys and values of a file: as many as are read in a second."""
DEEPEST = 40
"""Levels of nesting; the language itself needs six."""

_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_CONVERT: dict[str, Callable[[str], str | int | float | bool | None]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": lambda text: int(text, 0),
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}
"""Plain scalars to values, by what YAML 1.2 takes them for; timestamps stay text."""


class Document(NamedTuple):
    """One YAML text, read: `name` is how places call it."""

    name: str
    text: str
    root: Node


def read_file(path: Path, name: str) -> Document:
    """Read a recipe file.

    Raises:
        UsageError: it cannot be read, is too large, or is not UTF-8.
        RecipeError: it is not the YAML that recipes are written in.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read {name}: {reason}", remedy="name a readable YAML file") from error
    if len(content) > LARGEST_FILE:
        raise UsageError(
            f"{name} is larger than 256 kB", remedy="a recipe is a short YAML file; is this the right one?"
        )
    try:
        return read_text(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start})", remedy="save it as UTF-8") from error


def read_text(text: str, name: str) -> Document:
    """Read a recipe from text.

    Raises:
        RecipeError: it is not the YAML that recipes are written in.
    """
    return Document(name, text, _Reader(name).read(text))


def read_value(text: str, place: Place) -> Node:
    """Read one YAML value from an option; everything in it is at `place`.

    Raises:
        RecipeError: it is no YAML value.
    """
    return _Reader(place.file, place).read(text)


class _Reader:
    """Builds the tree from ruamel's events: its own composer would follow aliases and lose the keys' places."""

    def __init__(self, name: str, fixed: Place | None = None) -> None:
        self.name, self.fixed = name, fixed
        self.found: list[Diagnostic] = []
        self.values = 0

    def read(self, text: str) -> Node:
        self._refuse_directives(text)
        try:
            node = self._document(events(text))
        except MarkedYAMLError as error:
            place = self._place(error.problem_mark or error.context_mark)
            raise self._fatal(_problem(error), place) from error
        except ReaderError as error:
            before = text[: error.position] if isinstance(error.position, int) else ""
            line = before.count("\n") + 1
            place = self.fixed or Place(self.name, line, len(before) - (before.rfind("\n") + 1) + 1)
            raise self._fatal(f"character U+{ord(text[len(before)]):04X} is not allowed", place) from error
        except (YAMLError, ValueError, AssertionError) as error:  # ruamel's own, at directives after the first line
            raise self._fatal(f"not YAML: {str(error).splitlines()[0]}", self.fixed or Place(self.name)) from error
        if self.found:
            raise RecipeError(self.found)
        return node

    def _refuse_directives(self, text: str) -> None:
        """`%YAML 1.1` would change what values mean: `no` would be false, and 0755 octal."""
        for number, line in enumerate(text.split("\n"), 1):
            if line.startswith("%"):
                place = self.fixed or Place(self.name, number, 1)
                raise self._fatal(
                    "recipes have no directives", place, "remove the line; text that starts with `%` must be quoted"
                )
            if line.strip() and not line.lstrip().startswith("#"):
                return

    def _document(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, StreamStartEvent):
                continue
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise self._fatal("a second document starts here", self._place(event.start_mark), "keep one a file")
                root = self._node(next(events), events, 1)
        return root if root is not None else Scalar(None, self.fixed or Place(self.name))

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        place = self._place(event.start_mark)
        if isinstance(event, AliasEvent) or event.anchor is not None:
            sign = "*" if isinstance(event, AliasEvent) else "&"
            helping = "write the value out, or share it with `extends`; text that starts so must be quoted"
            raise self._fatal(f"{sign}{event.anchor}: recipes have no anchors and aliases", place, helping)
        if getattr(event, "tag", None) is not None:
            raise self._fatal(f"{event.tag}: recipes have no tags", place, "text that starts with `!` must be quoted")
        self.values += 1
        if self.values > MOST_VALUES:
            raise self._fatal(f"more than {MOST_VALUES:,} keys and values", place, "a recipe is a short YAML file")
        if depth > DEEPEST:
            raise self._fatal(f"more than {DEEPEST} levels of nesting", place)
        if isinstance(event, ScalarEvent):
            return Scalar(self._scalar(event, place), place)
        if isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(inner := next(events), SequenceEndEvent):
                items.append(self._node(inner, events, depth + 1))
            return Sequence(tuple(items), place)
        return self._mapping(place, events, depth)

    def _mapping(self, place: Place, events: Iterator[Any], depth: int) -> Mapping:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            key = self._node(event, events, depth + 1)
            inner = next(events)
            value = self._node(inner, events, depth + 1)
            if isinstance(inner, ScalarEvent) and not inner.value and inner.implicit[0]:
                value = Scalar(None, key.place)  # nothing is written; ruamel's mark is at whatever comes next
            name = self._key(event, key)
            if name in entries:
                self._report(
                    "PD002",
                    f"{name} is written twice",
                    key.place,
                    f"the first is at line {entries[name].key.line}; keep one of them",
                )
            elif name is not None:
                entries[name] = Entry(key.place, value)
        return Mapping(entries, place)

    def _key(self, event: Any, key: Node) -> str | None:
        if not isinstance(key, Scalar):
            self._report("PD001", "a key must be text", key.place, "braces or brackets as text must be quoted")
            return None
        if event.value == "<<" and event.implicit[0]:
            self._report("PD001", "recipes have no merge keys (<<)", key.place, "use `extends`")
            return None
        return str(event.value)

    def _scalar(self, event: Any, place: Place) -> str | int | float | bool | None:
        text: str = event.value
        kind = kind_of(text) if event.implicit[0] else "str"
        if kind == "int" and _LEADING_ZERO.fullmatch(text):
            helping = "write the number without leading zeros (0o755 is octal), or quote it if it is text"
            self._report("PD001", f"{text} starts with 0, which some programs read as octal", place, helping)
            return text
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            self._report("PD001", "half of a surrogate pair is no text", place, "write the character itself")
        try:
            return _CONVERT.get(kind, str)(text)
        except ValueError:
            return text  # a number to YAML and none to Python (1__0, thousands of digits): its field refuses the text

    def _place(self, mark: Any) -> Place:
        if self.fixed or mark is None:
            return self.fixed or Place(self.name)
        return Place(self.name, mark.line + 1, mark.column + 1)

    def _report(self, code: str, message: str, place: Place, helping: str) -> None:
        self.found.append(Diagnostic(code, Severity.ERROR, message, place, helping))

    def _fatal(self, message: str, place: Place, helping: str = "") -> RecipeError:
        self._report("PD001", message, place, helping)
        return RecipeError(self.found)


def _problem(error: MarkedYAMLError) -> str:
    """What is wrong, in a user's words where ruamel's are a parser's."""
    problem = str(error.problem or error.context or "not YAML")
    if "'\\t'" in problem:
        return "a tab; YAML is indented with spaces"
    if "mapping values are not allowed" in problem:
        return "a second `:` in one line; text that contains `: ` must be quoted"
    return f"not YAML: {problem}"
