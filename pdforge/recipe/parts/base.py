"""What every part of a recipe has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Base of every part of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def by_default(discriminator: str, tag: str) -> Callable[[Any], Any]:
    """A validator that lets a mapping leave out `discriminator` where it is `tag`."""

    def complete(value: Any) -> Any:
        return {discriminator: tag, **value} if isinstance(value, dict) and discriminator not in value else value

    return complete
