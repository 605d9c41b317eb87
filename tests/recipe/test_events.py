"""The quick scanner gives what ruamel's own gives: events, places and errors, on recipes and on damaged pieces."""

from __future__ import annotations

import inspect
import random
import tomllib
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import ruamel.yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import ScalarNode

from pdforge.recipe import events as recipe_events
from pdforge.recipe.events import events, kind_of

_RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("**/*.yaml"))
_OTHERS = [
    "a: [1, 2, {b: c, d}]\n? x\n: y\n- 1\n",
    "a: |\n  x\n  y\nb: >-\n  q\n\n  z\nc: 'x''y'\nd: \"a\\n\\u03c4\"\n",
    "# c\n\n \na:  # x\n\n  - 1 # y\r\n  # z\n  - [1,  # \u2028\n\n # q\n 2]\n#\n# end",
    "a: &x 1\nb: *x\nc: !!int 3\nd: {a:1, b: , c}\n",
]
_DAMAGE = [
    *":?-,[]{}#&*!|>'\"@` \t\n\r\x85\u2028\ufeff\x00τ.0xe~<=",
    "---",
    "...",
    "- ",
    "? ",
    ": ",
    "\r\n",
    "1e-4",
    "<<",
]


def _seen(parse: Callable[[str], Iterable[Any]], text: str) -> list[tuple[object, ...]]:
    """What a parser makes of a text, the error that ends it included."""
    seen: list[tuple[object, ...]] = []
    try:
        for event in parse(text):
            marks = [(mark.line, mark.column) for mark in (event.start_mark, event.end_mark) if mark]
            values = [getattr(event, name, None) for name in ("value", "anchor", "implicit", "style")]
            seen.append((type(event), *values, str(getattr(event, "tag", None)), *marks))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        seen.append((type(error), error.problem, error.context, mark and (mark.line, mark.column)))
    except (YAMLError, ValueError, AssertionError) as error:
        seen.append((type(error), str(error)))
    return seen


def _own(text: str) -> Iterable[Any]:
    return YAML(typ="safe", pure=True).parse(text)


def _damaged(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    start = chance.randrange(len(lines))
    piece = "\n".join(lines[start : start + chance.randrange(1, 14)])
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(piece) + 1)
        gone = chance.choice((0, 0, 1, 4))
        piece = piece[:at] + ("" if gone else chance.choice(_DAMAGE)) + piece[at + gone :]
    return piece


@pytest.mark.parametrize("own", [recipe_events._Reader, recipe_events._Scanner, recipe_events._Parser])
def test_what_is_replaced_is_still_what_ruamel_calls(own: type) -> None:
    """Each method and attribute takes the place of one of ruamel's, with its arguments; else it is never called."""
    names = [name for name in vars(own) if not name.startswith("_")]
    moved = [name for name in names if not hasattr(own.__base__, name)]
    assert not moved, f"ruamel.yaml {ruamel.yaml.__version__} has no {moved}: see pdforge/recipe/events.py"
    for name in names:
        if isinstance(function := vars(own)[name], FunctionType):
            theirs = inspect.signature(getattr(own.__base__, name)).parameters
            assert list(inspect.signature(function).parameters) == list(theirs), name


def test_only_tried_versions_of_ruamel_are_installed() -> None:
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        needs = tomllib.load(file)["project"]["dependencies"]
    (bounds,) = (need for need in needs if need.startswith("ruamel.yaml"))
    assert "<" in bounds, "an upper bound: pdforge/recipe/events.py replaces parts that are not public"


@pytest.mark.parametrize("text", [*(file.read_text(encoding="utf-8") for file in _RECIPES), *_OTHERS])
def test_whole_texts_give_the_same_events(text: str) -> None:
    assert _seen(events, text) == _seen(_own, text)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_texts_give_the_same_events_and_errors(seed: int) -> None:
    chance = random.Random(seed)
    texts = [*(file.read_text(encoding="utf-8") for file in _RECIPES), *_OTHERS]
    for _ in range(200):
        piece = _damaged(chance.choice(texts), chance)
        assert _seen(events, piece) == _seen(_own, piece), piece


@pytest.mark.parametrize(
    "text", ["", "1", "0o17", "017", "1e-4", "1_0", ".5", ".inf", "no", "True", "~", "<<", "=", "2024-01-01", "x"]
)
def test_plain_scalars_are_taken_for_what_ruamel_takes_them_for(text: str) -> None:
    assert kind_of(text) == _their_kind(text)


def test_short_plain_scalars_are_all_taken_for_what_ruamel_takes_them_for() -> None:
    texts = ["".join(characters) for length in range(1, 5) for characters in product("01_.eExobBZ%-t", repeat=length)]
    texts += ["true", "False", "NULL", "nullable", "trueish", "0xBB", "2024-01-01T00:00:00Z", "1.9b", "0.5B", "1e5B"]
    resolver = YAML(typ="safe", pure=True).resolver
    wrong = [text for text in texts if kind_of(text) != _their_kind(text, resolver)]
    assert not wrong


def _their_kind(text: str, resolver: Any = None) -> str:
    resolver = resolver or YAML(typ="safe", pure=True).resolver
    return str(resolver.resolve(ScalarNode, text, (True, False))).removeprefix("tag:yaml.org,2002:")
