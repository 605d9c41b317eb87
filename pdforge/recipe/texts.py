"""What the fields of a recipe mean: the text below each field's declaration, read from the source.

pydantic can do the same for every class that is imported (`use_attribute_docstrings`), which took a quarter of
`pdforge validate`; here a module is read once, when a text is asked for.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


@cache
def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """The texts of the model's fields, those it inherits among them, by attribute."""
    texts: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if issubclass(part, BaseModel) and part is not BaseModel:
            texts |= _module_texts(part.__module__).get(part.__qualname__, {})
    return texts


@cache
def _module_texts(module: str) -> dict[str, dict[str, str]]:
    """Field texts of the classes at the top of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {each.name: _texts(each) for each in tree.body if isinstance(each, ast.ClassDef)}


def _texts(declaration: ast.ClassDef) -> dict[str, str]:
    texts: dict[str, str] = {}
    for field, text in pairwise(declaration.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(written))):
                texts[name] = inspect.cleandoc(written)
    return texts
