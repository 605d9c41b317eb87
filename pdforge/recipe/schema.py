"""The shape of the language, read off the models: which model a place in a recipe is checked by."""

import types
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import Discriminator, Tag
from pydantic.fields import FieldInfo

from pdforge.recipe.models import Model, Recipe
from pdforge.recipe.texts import field_texts
from pdforge.recipe.tree import FieldPath

DISCRIMINATORS = ("kind", "schedule", "mode")
"""Keys that say which of several models a mapping is."""

COMPOSITION = ("extends", "variants", "sweep")
"""Keys at the top of a file that say how recipes are made of it, and are part of none."""


class Shape(NamedTuple):
    """What may stand at a place: a model, one of several told apart by `discriminator`, items, or a scalar."""

    models: tuple[type[Model], ...] = ()
    discriminator: str | None = None
    item: Any = None
    """Type of what a list or a mapping with keys of any name holds."""
    forms: "Mapping[str, Shape]" = MappingProxyType({})
    """By label, where values of several forms are told apart by looking at them (a number or a mapping)."""

    def member(self, tag: object) -> "Shape":
        """The form labelled `tag`, or the model whose discriminator it is; an empty shape where there is none."""
        if self.forms:
            return self.forms.get(str(tag), Shape())
        return Shape(tuple(m for m in self.models if tag in tags(m, self.discriminator or "")))

    @property
    def tags(self) -> list[str]:
        """The discriminator's values."""
        return [tag for model in self.models for tag in tags(model, self.discriminator or "")]


ROOT = Shape((Recipe,))


@cache
def fields(model: type[Model]) -> dict[str, FieldInfo]:
    """The model's fields by the name that a recipe uses."""
    if not model.__pydantic_fields_complete__:  # it names a part that is declared after it
        model.model_rebuild()
    return {info.alias or name: info for name, info in model.model_fields.items()}


def tags(model: type[Model], discriminator: str) -> list[str]:
    """Values of the model's discriminator; none where it has no such field."""
    info = fields(model).get(discriminator)
    return list(get_args(info.annotation)) if info else []


def shape_of(annotation: Any, discriminator: str | None = None) -> Shape:
    """The shape that a type annotation allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        if any(isinstance(m, Discriminator) for m in metadata):
            return _forms(inner)
        named = [m.discriminator for m in metadata if isinstance(m, FieldInfo) and isinstance(m.discriminator, str)]
        return shape_of(inner, named[0] if named else discriminator)
    if origin in (Union, types.UnionType):
        shapes = [shape_of(argument) for argument in get_args(annotation)]
        models = tuple(model for shape in shapes for model in shape.models)
        return Shape(models, discriminator, next((shape.item for shape in shapes if shape.item), None))
    if origin in (list, tuple, dict):
        return Shape(item=get_args(annotation)[1 if origin is dict else 0])
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return Shape((annotation,))
    return Shape()


def _forms(union: Any) -> Shape:
    """The shape of a union whose members are labelled; its models are those of all of them."""
    forms = {}
    for member in get_args(union):
        label = next(m.tag for m in get_args(member) if isinstance(m, Tag))
        forms[str(label)] = shape_of(member)
    return Shape(tuple(model for shape in forms.values() for model in shape.models), forms=forms)


def field_shape(info: FieldInfo) -> Shape:
    """The shape of a model's field."""
    if any(isinstance(m, Discriminator) for m in info.metadata):
        return _forms(info.annotation)
    return shape_of(info.annotation, info.discriminator if isinstance(info.discriminator, str) else None)


class Site(NamedTuple):
    """Where a validation error is: its path without pydantic's labels, the model around it and what may stand there."""

    path: FieldPath
    owner: type[Model] | None
    shape: Shape

    @property
    def text(self) -> str:
        """What the field at the end of the path means; empty where the language has no such field."""
        if self.owner is None or not self.path:
            return ""
        attributes = {info.alias or name: name for name, info in self.owner.model_fields.items()}
        return field_texts(self.owner).get(attributes.get(str(self.path[-1]), ""), "")


def site(location: tuple[str | int, ...], root: type[Model] = Recipe) -> Site:
    """Clean a pydantic location in `root`: union tags and names of scalar types go, keys and indices stay.

    A tag may look like a key (`corpus.text.path` of a corpus with a key `text`), so only the models tell them apart.
    """
    shape, owner = Shape((root,)), None
    path: list[str | int] = []
    for part in location:
        if shape.discriminator or shape.forms:
            shape = shape.member(part)
        elif isinstance(part, int) or shape.item:
            path.append(part)
            shape = shape_of(shape.item)
        elif len(shape.models) == 1:
            owner = shape.models[0]
            path.append(part)
            info = fields(owner).get(part)
            shape = field_shape(info) if info else Shape()
        else:
            break  # the label of one branch of a union of scalars
    return Site(tuple(path), owner, shape)


def default_tag(path: FieldPath, discriminator: str) -> str | None:
    """The value that `discriminator` has at `path` when it is not written."""
    models, item = ROOT.models, None
    for part in path:
        if isinstance(part, int):
            shapes = [shape_of(item)]
        else:
            shapes = [field_shape(fields(model)[part]) for model in models if part in fields(model)]
        models = tuple(model for shape in shapes for model in shape.models)
        item = next((shape.item for shape in shapes if shape.item), None)
    for model in models:
        info = fields(model).get(discriminator)
        if info is not None and not info.is_required():
            return str(info.default)
    return None
