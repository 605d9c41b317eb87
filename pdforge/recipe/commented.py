"""A recipe as a file to start from: every field, under the text that says what it is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from pdforge.errors import UsageError
from pdforge.recipe.dump import dump_values
from pdforge.recipe.models import Recipe
from pdforge.recipe.schema import COMPOSITION
from pdforge.recipe.texts import field_texts
from pdforge.recipe.tree import Mapping, plain

_WIDTH = 100
_HEAD = """\
# Started from {origin} by `pdforge new`. A field that you delete falls back to its default;
# `pdforge show` prints the result, `pdforge validate` checks it, `pdforge schema --reference` explains every form.
"""


def commented_recipe(name: str, origin: str, composed: Mapping) -> str:
    """The text of a recipe called `name` that is the composed recipe `origin` in everything else, variants included.

    Raises:
        UsageError: `origin` is no whole recipe without one of its variants.
    """
    values = plain(composed)
    body = {key: value for key, value in values.items() if key not in COMPOSITION}
    try:
        recipe = Recipe.model_validate({**body, "recipe": name})
    except ValidationError as error:
        remedy = "start from a recipe that is whole without its variants"
        raise UsageError(f"{origin} is whole only with one of its variants", remedy=remedy) from error
    lines = [_HEAD.format(origin=origin).rstrip(), *_model(recipe, "")]
    for key in COMPOSITION:
        if values.get(key):
            lines += ["", *dump_values({key: values[key]}).splitlines()]
    return "\n".join(lines) + "\n"


def _model(model: BaseModel, indent: str) -> Iterator[str]:
    """The fields of a part, each below its text; an optional one that is not used is a comment."""
    values = model.model_dump(mode="json", by_alias=True)
    texts = field_texts(type(model))
    for attribute, info in type(model).model_fields.items():
        name, value = info.alias or attribute, getattr(model, attribute)
        if not indent:
            yield ""
        yield from _comment(texts.get(attribute, ""), indent)
        if value is None:
            yield f"{indent}# {name}:"
        elif isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _model(value, indent + "  ")
        else:
            yield from (indent + line for line in dump_values({name: values[name]}).splitlines())


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(" ".join(text.split()), _WIDTH - len(indent)):
        yield f"{indent}# {line}"
