"""The language as a JSON Schema, for editors: they complete keys, show the fields' texts and mark what cannot be.

Nothing is required, since a file may extend another one and a variant is a part of a recipe: whether a recipe is whole
and sound is what `pdforge validate` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonRef, JsonSchemaValue
from pydantic_core import core_schema

from pdforge.recipe.models import Recipe
from pdforge.recipe.texts import field_texts
from pdforge.recipe.units import parse_count, parse_duration, parse_fraction, parse_size

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"

_TEXTS: dict[Callable[..., Any], str] = {
    parse_count: r"^\s*[0-9][0-9_]*(\.[0-9]+)?\s*[kKMBGT]?\s*$",
    parse_size: r"^\s*[0-9][0-9_]*(\.[0-9]+)?\s*([kMGT]?B?|[KMGT]iB)\s*$",
    parse_duration: r"^\s*([0-9][0-9_]*(\.[0-9]+)?\s*[smhd]\s*)+$",
    parse_fraction: r"^\s*[0-9][0-9_]*(\.[0-9]+)?([eE][-+]?[0-9]+)?\s*%?\s*$",
}
"""How a number with a unit is written, by the function that reads it."""

_WORDS = {parse_count: "count", parse_size: "size", parse_duration: "duration", parse_fraction: "fraction"}

_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""pydantic leaves the bounds of a field whose text is read first under its own names."""

_NAME = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"}
_FIELDS = {"type": "object", "propertyNames": {"pattern": r"^(name|[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*)$"}}


class _Generator(GenerateJsonSchema):
    """pydantic's schema, with the fields' texts, the texts that stand for numbers and the short forms of mappings."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        inner = super().function_before_schema(schema)
        pattern = _TEXTS.get(schema["function"]["function"])
        if not pattern:
            return inner
        bounds = {key: inner.pop(key) for key in _BOUNDS.values() if key in inner}
        return {"anyOf": [inner, {"type": "string", "pattern": pattern}], **bounds}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        for attribute, text in field_texts(model).items():
            field = result["properties"][model.model_fields[attribute].alias or attribute]
            part = self.get_schema_from_definitions(JsonRef(field["$ref"])) if "$ref" in field else None
            if part is None or part.get("description") != text:  # the part says it already
                field["description"] = text
        return result


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe file, draft 2020-12."""
    schema = Recipe.model_json_schema(by_alias=True, schema_generator=_Generator)
    parts = {name: _tolerant(part) for name, part in schema.pop("$defs").items()}
    parts["AlphaNumber"] = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, _text(parse_fraction)]}
    alpha = parts["Objective"]["properties"]["alpha"]
    alpha["anyOf"].append({"$ref": "#/$defs/AlphaNumber"})
    fields = _tolerant(schema)["properties"]
    parts["Partial"] = {
        "type": "object",
        "description": "Part of a recipe, laid over the rest of the file.",
        "properties": {name: {"$ref": f"#/$defs/Recipe/properties/{name}"} for name in fields},
        "additionalProperties": False,
    }
    parts["Recipe"] = {"properties": fields}
    return {
        "$schema": SCHEMA_ID,
        "title": "pdforge recipe",
        "description": schema["description"],
        "type": "object",
        "properties": {
            **{name: {"$ref": f"#/$defs/Recipe/properties/{name}"} for name in fields},
            **_composition(),
        },
        "additionalProperties": False,
        "$defs": parts,
    }


def schema_text() -> str:
    """`recipe_schema` as a file."""
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False, sort_keys=False) + "\n"


def _composition() -> dict[str, Any]:
    values = {"type": "array", "minItems": 1}
    return {
        "extends": {
            "description": "Files or gallery recipes that this one is laid over, the last of them nearest.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        },
        "variants": {
            "description": "What each named variant changes; every variant is a run.",
            "type": ["object", "null"],
            "propertyNames": _NAME,
            "additionalProperties": {"anyOf": [{"$ref": "#/$defs/Partial"}, {"type": "null"}]},
        },
        "sweep": {
            "description": "Runs that differ in values; grid, paired and seeds multiply.",
            "type": ["object", "null"],
            "properties": {
                "grid": {
                    "description": "Every combination of these fields' values.",
                    **_FIELDS,
                    "additionalProperties": values,
                },
                "paired": {
                    "description": "Sets of values that go together; `name` names a set.",
                    **values,
                    "items": _FIELDS,
                },
                "seeds": {
                    "description": "A number of seeds, or a list of them, for training.seed.",
                    "anyOf": [{"type": "integer", "minimum": 1}, values],
                },
            },
            "additionalProperties": False,
        },
    }


def _text(reader: Callable[..., Any]) -> dict[str, Any]:
    return {"type": "string", "pattern": _TEXTS[reader]}


def _tolerant(schema: Any) -> Any:
    """The schema without `required` and pydantic's titles; of several forms any may match, as a part of one may."""
    if isinstance(schema, list):
        return [_tolerant(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _tolerant(each) for name, each in value.items()}
        elif key == "oneOf":
            result["anyOf"] = _tolerant(value)
        elif key == "description":
            result[key] = " ".join(value.split())
        elif key not in ("required", "title", "discriminator"):
            word = _BOUNDS.get(str(key), str(key))
            result[word] = value if key in ("default", "enum", "const") else _tolerant(value)
    for closed, opened, sign in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)):
        if closed in result and opened in result:  # a type's bound and its field's: one says more
            del result[opened if sign * result[closed] > sign * result[opened] else closed]
    return result


def number_word(schema: dict[str, Any]) -> str | None:
    """What a number that may be written with a unit is called: `count`, `size`; None for another schema."""
    patterns = {each.get("pattern") for each in schema.get("anyOf", ())}
    return next((_WORDS[reader] for reader, pattern in _TEXTS.items() if pattern in patterns), None)
