"""The reference page of the language, written from the fields' own texts and the rules' explanations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pdforge.recipe.json_schema import number_word, recipe_schema
from pdforge.recipe.rules import TOPICS
from pdforge.recipe.schema import DISCRIMINATORS

_HEAD = """\
# Recipe reference

Written by `pdforge schema --reference` from the language itself. [recipes.md](recipes.md) explains how recipes are
composed; `pdforge show RECIPE` prints one with every default.
"""
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true or false", "null": ""}


def reference() -> str:
    """The page, in Markdown."""
    parts = recipe_schema()["$defs"]
    sections = dict(_sections("Recipe", "", parts))
    pages = [_HEAD, "## Fields\n", *(_section(name, path, parts) for name, path in sections.items())]
    return "\n".join([*pages, "## Codes\n", *_codes()])


def _sections(name: str, path: str, parts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each part once, with the path of its first place, each after the part that holds it."""
    found: dict[str, str] = {}

    def visit(name: str, path: str) -> None:
        if name in found:
            return
        found[name] = path
        for field, schema in parts[name]["properties"].items():
            for inner, suffix in _references(schema):
                visit(inner, f"{path}.{field}{suffix}".lstrip("."))

    visit(name, path)
    yield from found.items()


def _references(schema: Any, suffix: str = "") -> Iterator[tuple[str, str]]:
    """Parts that may stand here; those in a list are at `field[]`."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name != "AlphaNumber":
            yield name, suffix
    for each in schema.get("anyOf", ()):
        yield from _references(each, suffix)
    if isinstance(schema.get("items"), dict):
        yield from _references(schema["items"], f"{suffix}[]")


def _section(name: str, path: str, parts: dict[str, Any]) -> str:
    part = parts[name]
    lines = [f'<a id="{name.lower()}"></a>', f"### {_title(path, part)}\n"]
    if description := part.get("description"):
        lines.append(f"{description}\n")
    lines += ["| field | value | default | |", "|---|---|---|---|"]
    for field, schema in part["properties"].items():
        cells = (f"`{field}`", _value(schema, parts), _default(schema), _text(field, schema, parts))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _text(field: str, schema: dict[str, Any], parts: dict[str, Any]) -> str:
    if "$ref" in schema and "description" not in schema:
        return str(parts[_referred(schema)].get("description", ""))
    return str(schema.get("description", "Says which form this is." if field in DISCRIMINATORS else ""))


def _title(path: str, part: dict[str, Any]) -> str:
    kind = _kind(part)
    return f"`{path or 'recipe'}`" + (f", `{kind}`" if kind else "")


def _kind(part: dict[str, Any]) -> str:
    """`kind: jsonl`, of a part that is one of several forms."""
    fields = part["properties"]
    return next((f"{key}: {fields[key]['const']}" for key in DISCRIMINATORS if "const" in fields.get(key, {})), "")


def _referred(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).rsplit("/", 1)[1]


def _value(schema: dict[str, Any], parts: dict[str, Any]) -> str:
    """What may stand there, in words."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        name = _referred(schema)
        if name == "AlphaNumber":
            return "number"
        return f"[{_kind(parts[name]) or 'mapping'}](#{name.lower()})"
    bounds = " ".join(f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema)
    return " ".join(filter(None, (_type(schema, parts), bounds)))


def _type(schema: dict[str, Any], parts: dict[str, Any]) -> str:
    if "anyOf" in schema:
        words = [_value(each, parts) for each in schema["anyOf"]]
        return number_word(schema) or ", ".join(dict.fromkeys(filter(None, words)))
    if schema.get("type") == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        return f"list of {_value(items, parts)}"
    if schema["type"] == "object":
        return f"mapping to {_value(schema['additionalProperties'], parts)}"
    return _TYPES[schema["type"]]


def _default(schema: dict[str, Any]) -> str:
    if "const" in schema or schema.get("default") is None:
        return ""
    value = schema["default"]
    if not isinstance(value, dict):
        return f"`{json.dumps(value, ensure_ascii=False)}`"
    kind = next((f"{key}: {value[key]}" for key in DISCRIMINATORS if key in value), "")
    return f"`{kind}`" if kind else "its own"


def _codes() -> Iterator[str]:
    for topic in TOPICS.values():
        yield f"**{topic.code}** ({topic.severity}) {topic.title}. {topic.explanation}\n"
