"""Jinja environments in which whatever a recipe says can only become data.

Every `{{ expression }}` of a template is quoted by the target language's own rules, without exception and without a
filter to forget: as a Python literal in Python files, as one word in shell scripts, as text in Markdown and HTML. What
must appear as code is a `Name`, which holds identifiers and nothing else.
"""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2

import pdforge
from pdforge.errors import EnvironmentFault

Language = Literal["python", "shell", "markdown", "html"]


class Name:
    """One or more Python identifiers, rendered as they are.

    Raises:
        ValueError: not identifiers.
    """

    def __init__(self, *names: str) -> None:
        if not names or not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
            raise ValueError(f"not identifiers: {names!r}")
        self.text = ", ".join(names)


def render(template: str, language: Language, values: dict[str, Any]) -> str:
    """The template filled with values; an undefined name is an error."""
    return _environment(language).get_template(template).render(values)


def template_directory() -> Path:
    """The templates: inside an installed package, else of the checkout.

    Raises:
        EnvironmentFault: this copy of pdforge has neither.
    """
    package = Path(pdforge.__file__).parent
    for directory in (package / "_data" / "templates", package.parent / "templates"):
        if directory.is_dir():
            return directory
    raise EnvironmentFault("this installation of pdforge has no templates", remedy="reinstall pdforge")


@cache
def _environment(language: Language) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_directory()),
        finalize=_QUOTE[language],
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # quoting is by `finalize`, for every language
        autoescape=False,
    )


def _python(value: Any) -> str:
    if isinstance(value, Name):
        return value.text
    # JSON's string syntax is a subset of Python's, and its double quotes are what people write
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _shell(value: Any) -> str:
    return shlex.quote(str(value))


def _markdown(value: Any) -> str:
    """One line of text in which nothing is markup."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(str(value).split(" ")).replace("\n", " "))


_MARKUP = re.compile(r"[\\`*_\[\]<>|#&]")
_QUOTE: dict[Language, Callable[[Any], str]] = {
    "python": _python,
    "shell": _shell,
    "markdown": _markdown,
    "html": lambda value: html.escape(str(value)),
}
