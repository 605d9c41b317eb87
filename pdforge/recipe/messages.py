"""pydantic's findings in words for people, at the place where the value was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from pdforge.diagnostics import Diagnostic, Place, Severity
from pdforge.recipe.models import Model, Recipe
from pdforge.recipe.schema import COMPOSITION, DISCRIMINATORS, Shape, Site, fields, site
from pdforge.recipe.tree import Mapping, Node, Scalar, Sequence, dotted, locate, plain
from pdforge.text import closest

_LONGEST = 60
_YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}

_MUST_BE: dict[str, Callable[[dict[str, Any]], str]] = {
    "greater_than": lambda c: f"more than {c['gt']:g}",
    "greater_than_equal": lambda c: f"at least {c['ge']:g}",
    "less_than": lambda c: f"less than {c['lt']:g}",
    "less_than_equal": lambda c: f"at most {c['le']:g}",
    "literal_error": lambda c: f"{c['expected']}",
    "value_error": lambda c: f"{c['error']}",
    "finite_number": lambda _: "finite",
    "string_too_short": lambda _: "text that is not empty",
    "string_unicode": lambda _: "valid Unicode",
    "too_short": lambda c: f"a list of at least {c['min_length']}",
    "too_long": lambda c: f"a list of at most {c['max_length']}",
    "int_type": lambda _: "a whole number",
    "int_parsing": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "float_parsing": lambda _: "a number",
    "bool_type": lambda _: "true or false",
    "bool_parsing": lambda _: "true or false",
    "string_type": lambda _: "text",
    "tuple_type": lambda _: "a list",
    "list_type": lambda _: "a list",
}
"""What completes `it must be …`, by pydantic's error type (units.py words its own errors the same way)."""


def diagnose(
    error: ValidationError, root: Node, model: type[Model] = Recipe, whole: str = "the recipe"
) -> list[Diagnostic]:
    """One diagnostic a field of `model`, in pydantic's order; `whole`: what messages call all of it."""
    by_field: dict[str, list[tuple[Site, Any]]] = {}
    for item in error.errors(include_url=False):
        if item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]:
            continue  # pydantic does not count the items that are wrong themselves
        at = site(item["loc"], model)
        kind = item["type"] if item["type"] in ("missing", "extra_forbidden") else ""
        by_field.setdefault(f"{kind} {dotted(at.path)}", []).append((at, item))
    return [_diagnose(items, root, whole) for items in by_field.values()]


def _diagnose(items: list[tuple[Site, Any]], root: Node, whole: str) -> Diagnostic:
    at, item = items[0]
    match item["type"]:
        case "missing":
            return _missing(at, root, whole)
        case "extra_forbidden":
            return _unknown_key(at, root, whole)
        case "union_tag_invalid":
            return _unknown_kind(at, root)
        case "union_tag_not_found":
            return _no_kind(at, root)
    path, place, node = locate(root, at.path)
    value = node.value if path == at.path and isinstance(node, Scalar) else item["input"]
    name = path[-1] if path and isinstance(path[-1], str) else dotted(path[-2:])
    if at.shape.models:
        accepted = f"a mapping with {_listed(_keys(at.shape))}"
    else:
        accepted = " or ".join(dict.fromkeys(_must_be(i) for _, i in items))
    message = f"{name or dotted(at.path) or whole} is {quote(value)}; it must be {accepted}"
    return _error("PD005", message, place, _help(at, item), dotted(path))


def _must_be(item: Any) -> str:
    words = _MUST_BE.get(item["type"])
    return words(item.get("ctx", {})) if words else f"otherwise ({item['msg']})"


def _help(at: Site, item: Any) -> str:
    value = item["input"]
    text = value.lower() if isinstance(value, str) else ""
    if item["type"] == "bool_type" and text in _YAML_1_1:
        return f"YAML 1.2 reads {value} as text: write {_YAML_1_1[text]}"
    if item["type"] == "string_type" and isinstance(value, bool | int | float):
        return "quote it if it is meant as text"
    if value in at.shape.tags:
        return f"write {{{at.shape.discriminator}: {value}}}"
    if item["type"] == "literal_error" and isinstance(value, str):
        suggestion = _did_you_mean(value, [word.strip("' ") for word in item["ctx"]["expected"].split("'")[1::2]])
        if suggestion:
            return suggestion
    return at.text


def _missing(at: Site, root: Node, whole: str) -> Diagnostic:
    path, place, node = locate(root, at.path[:-1])
    key = at.path[-1]
    if isinstance(key, int):
        written = len(node.items) if isinstance(node, Sequence) else 0
        message = f"{path[-1]} has {written} of its values"
        return _error("PD004", message, place, at.text, dotted(path))
    message = f"{dotted(path) or whole} lacks {key}"
    return _error("PD004", message, place, f"{key}: {at.text}" if at.text else f"add {key}", dotted(at.path))


def _unknown_key(at: Site, root: Node, whole: str) -> Diagnostic:
    path, _, node = locate(root, at.path[:-1])
    key = str(at.path[-1])
    place = node.entries[key].key if isinstance(node, Mapping) and key in node.entries else node.place
    known = [*fields(at.owner), *(COMPOSITION if at.owner is Recipe else ())] if at.owner else []
    message = f"{dotted(path) or whole}{_kind(node)} has no key {quote(key)}"
    return _error("PD003", message, place, _suggest(key, known, "its keys are"), dotted(at.path))


def _unknown_kind(at: Site, root: Node) -> Diagnostic:
    key = at.shape.discriminator or "kind"
    path, place, node = locate(root, (*at.path, key))
    tag = plain(node)
    message = f"{key} of {dotted(at.path)} is {quote(tag)}"
    helping = f"{_did_you_mean(str(tag), at.shape.tags)} it must be one of {', '.join(at.shape.tags)}".strip()
    return _error("PD006", message, place, helping, dotted(path))


def _no_kind(at: Site, root: Node) -> Diagnostic:
    key = at.shape.discriminator or "kind"
    path, place, node = locate(root, at.path)
    known = f"it must be one of {', '.join(at.shape.tags)}"
    if isinstance(node, Mapping):
        return _error("PD006", f"{dotted(path)} lacks {key}", place, known, dotted(at.path))
    return _error("PD005", f"{path[-1]} is a list; it must be a mapping with {key}", place, known, dotted(path))


def _kind(node: Node) -> str:
    """` of kind 'text'`, for a mapping that says so."""
    for key in DISCRIMINATORS:
        if isinstance(node, Mapping) and key in node.entries and isinstance(value := node.entries[key].node, Scalar):
            return f" of {key} {value.value!r}"
    return ""


def _keys(shape: Shape) -> list[str]:
    if shape.discriminator:
        return [shape.discriminator]
    return list(fields(shape.models[0]))


def _suggest(word: str, known: list[str], introduction: str) -> str:
    suggestion = _did_you_mean(word, known)
    return suggestion or f"{introduction} {', '.join(known)}"


def _did_you_mean(word: str, known: list[str]) -> str:
    close = closest(word.lower(), known)
    return f"did you mean {close}?" if close else ""


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def quote(value: Any) -> str:
    """A value as a recipe would write it, cut to a line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _error(code: str, message: str, place: Place, helping: str, field: str) -> Diagnostic:
    return Diagnostic(code, Severity.ERROR, message, place, helping, field)
