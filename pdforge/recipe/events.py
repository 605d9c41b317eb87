"""YAML text → ruamel's events, in less time: what its scanner looks up and counts again and again is kept.

Nothing here decides what YAML is: each method gives what ruamel's own gives. A text has no directives (`reader.py`
refuses them), so its version is 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.events import ScalarEvent
from ruamel.yaml.parser import Parser
from ruamel.yaml.reader import Reader
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scanner import Scanner
from ruamel.yaml.tokens import ScalarToken

_VERSION = (1, 2)
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*(?=:[ \n])")
_WORD_IN_BRACES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*(?=:[ \n]|[,\]}])")
"""Plain scalars without a surprise, up to what ends them."""
_NUMERAL = re.compile(r"[0-9][0-9_]*(\.[0-9_]*(?:[eE][-+]?[0-9]+)?)?|([1-9][0-9_.]*[A-DF-Za-df-z%][A-Za-z%]*)")
"""A whole number; with a fraction; with a unit, which makes it text. Others are left to ruamel's patterns: it compiles
each at its first use, which takes longer than reading a recipe's numbers."""
_WORDS = {"true", "false", "null"}
_BLANK = re.compile(r"(?: *+(?:#[^\n\r\x85\u2028\u2029\ufeff\0]*+)?\n)*+ *+")
"""Spaces, comments and ends of lines, as long as there is nothing rarer among them."""
_RARER = "#\t\r\x85\u2028\u2029\ufeff"
_TAG = "tag:yaml.org,2002:"


class _Mark:
    """Where a token is, from 0."""

    __slots__ = ("column", "index", "line")

    def __init__(self, index: int, line: int, column: int) -> None:
        self.index, self.line, self.column = index, line, column


class _Reader(Reader):
    def check_printable(self, data: str) -> None:
        if not all(line.isprintable() for line in data.split("\n")):  # else ruamel compiles a costly pattern
            super().check_printable(data)

    def get_mark(self) -> _Mark:
        return _Mark(self.index, self.line, self.column)

    def forward(self, length: int = 1) -> None:
        start = self.pointer
        passed = self.buffer[start : start + length]
        if len(passed) < length or "\n" in passed or "\r" in passed or "\ufeff" in passed:
            super().forward(length)
            return
        self.pointer = start + length
        self.index += length
        self.column += length


class _Scanner(Scanner):
    scanner_processing_version = _VERSION
    _settled = -1
    """Tokens taken when no more were needed; until one is taken, none are."""

    @cached_property
    def reader(self) -> Any:
        return self.loader.reader

    def need_more_tokens(self) -> bool:
        if self.done or not self.tokens:
            return not self.done
        if self._settled == self.tokens_taken:
            return False
        self.stale_possible_simple_keys()
        needed: bool = self.next_possible_simple_key() == self.tokens_taken
        self._settled = -1 if needed else self.tokens_taken
        return needed

    def check_token(self, *choices: Any) -> bool:
        if self._settled != self.tokens_taken or not self.tokens:
            while self.need_more_tokens():
                self.fetch_more_tokens()
        return bool(self.tokens) and (not choices or isinstance(self.tokens[0], choices))

    def scan_to_next_token(self) -> Any:
        reader = self.reader
        blank = _BLANK.match(reader.buffer, reader.pointer)
        passed = blank[0] if blank else ""
        if "\n" in passed:
            reader.line += passed.count("\n")
            reader.column = 0
            self.allow_simple_key = self.allow_simple_key or not self.flow_context
        reader.column += len(passed) - passed.rfind("\n") - 1
        reader.index += len(passed)
        reader.pointer += len(passed)
        return super().scan_to_next_token() if reader.peek() in _RARER else None

    def scan_plain(self) -> Any:
        pattern = _WORD_IN_BRACES if self.flow_context else _WORD
        found = pattern.match(self.reader.buffer, self.reader.pointer)
        if found is None:
            return super().scan_plain()
        self.allow_simple_key = False
        start = self.reader.get_mark()
        self.reader.forward(found.end() - found.start())
        return ScalarToken(found[0], True, start, self.reader.get_mark())


class _Parser(Parser):
    @cached_property
    def scanner(self) -> Any:
        return self.loader.scanner

    def parse_node(self, block: bool = False, indentless_sequence: bool = False) -> Any:
        if not self.scanner.check_token(ScalarToken):
            return super().parse_node(block, indentless_sequence)
        token = self.scanner.get_token()
        self.state = self.states.pop()
        implicit = (True, False) if token.plain else (False, True)
        start, end = token.start_mark, token.end_mark
        return ScalarEvent(None, None, implicit, token.value, start, end, style=token.style, comment=token.comment)


class _Resolver(VersionedResolver):
    processing_version = _VERSION


def events(text: str) -> Iterator[Any]:
    """The events of a YAML text.

    Raises:
        ruamel.yaml.error.YAMLError, ValueError, AssertionError: it is not YAML.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Reader, yaml.Scanner, yaml.Parser, yaml.Resolver = _Reader, _Scanner, _Parser, _Resolver
    return iter(yaml.parse(text))


@cache
def _resolvers() -> dict[str, list[tuple[Any, Any]]]:
    """By a plain scalar's first character, the types that YAML 1.2 may take it for and the pattern of each."""
    resolvers: dict[str, list[tuple[Any, Any]]] = _Resolver().versioned_resolver
    return resolvers


def kind_of(text: str) -> str:
    """What YAML 1.2 takes a plain scalar for: `int`, `float`, `bool`, `null`, `timestamp`, `merge`, `value`, `str`."""
    if text[:1].isalpha() and text.lower() not in _WORDS:
        return "str"
    if numeral := _NUMERAL.fullmatch(text):
        return "str" if numeral[2] else "float" if numeral[1] else "int"
    for tag, pattern in _resolvers().get(text[:1], ()):
        if pattern.match(text):
            return str(tag).removeprefix(_TAG)
    return "str"
