"""What every part of a recipe has in common."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Base of every part of a recipe: frozen, and an unknown key is an error.

    A part is built when it is first used, and most only as part of a whole recipe; so a default that is a part is made
    with `model_construct`, which needs nothing built. Parts that identities write out by themselves are built at once
    (`defer_build=False`): a part that is not is built again by everything that holds it. `pdforge.recipe.texts` reads
    the fields' texts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


def by_default(discriminator: str, tag: str) -> Callable[[Any], Any]:
    """A validator that lets a mapping leave out `discriminator` where it is `tag`."""

    def complete(value: Any) -> Any:
        return {discriminator: tag, **value} if isinstance(value, dict) and discriminator not in value else value

    return complete
