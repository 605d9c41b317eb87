"""Conversations as documents: a row's turns, checked, as one line of JSON."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pdforge.errors import StoreError

if TYPE_CHECKING:
    from pdforge.chat import Message

_QUESTIONS = 3
"""Turns of the assistant in a conversation about the standard library, at most."""
_LONGEST_ANSWER = 400
"""Characters of a docstring's first paragraph; of a longer one nothing is asked."""


def conversation(value: Any, key: str, place: str, keys: list[str]) -> str:
    """The turns of a row, a list of `{role, content}`, as JSON; whatever else a turn has is left out.

    Raises:
        StoreError: they are no such turns, or none is the assistant's; names the row.
    """
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise StoreError(
            f"{place}: {key!r} is not a list of turns",
            remedy=f"a row holds [{{role, content}}, …]; keys here: {', '.join(keys)}",
        )
    messages: list[Message] = []
    for number, turn in enumerate(value, start=1):
        role, content = turn.get("role"), turn.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            lacking = "role" if not isinstance(role, str) else "content"
            raise StoreError(f"{place}: turn {number} has no {lacking!r} that is text", remedy="take the row out")
        messages.append({"role": role, "content": content})
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        raise StoreError(
            f"{place}: no turn of the assistant, so there is nothing to learn",
            remedy="give the row an answer with the role 'assistant', or take it out",
        )
    return _json(messages)


def docstring_conversations(sources: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """Conversations about the public functions of Python source files (path, content): what does each do?"""
    for source in sources:
        pairs = list(docstrings([source]))
        for start in range(0, len(pairs), _QUESTIONS):
            messages: list[Message] = [{"role": "system", "content": f"You explain {source[0]}."}]
            for name, answer in pairs[start : start + _QUESTIONS]:
                asked = f"What does {name} do?"
                messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            yield _json(messages)


def docstrings(sources: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, str]]:
    """Public functions of Python source files (path, content), and what each does: its docstring's first paragraph."""
    for path, data in sources:
        module = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for name, node in _functions(ast.parse(data).body):
            paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
            answer = " ".join(paragraph.split())
            if answer and len(answer) <= _LONGEST_ANSWER:
                yield f"{module}.{name}", answer


def _functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _functions(node.body, f"{prefix}{node.name}.")


def _json(messages: list[Message]) -> str:
    return json.dumps(messages, ensure_ascii=False, separators=(",", ":"))
