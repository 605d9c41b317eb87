"""Conversations as text: a chat template, and which parts of its text are the assistant's answers.

An answer is what the template adds between the generation prompt of its turn and the end of the turn, the marker that
ends it included: exactly what a model that is asked has to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, TypedDict

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from pdforge.errors import UsageError
from pdforge.recipe.chat_format import ChatFormat


class Message(TypedDict):
    """One turn."""

    role: str
    content: str


class Segment(NamedTuple):
    """A piece of a conversation's text."""

    text: str
    learnt: bool
    """It is an answer."""
    messages: Sequence[Message]
    """The turns that it is made of."""


class ChatTemplate:
    """A compiled template."""

    def __init__(self, chat: ChatFormat) -> None:
        """Compile it; raises UsageError where it is no template."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals.update(raise_exception=_refuse, bos_token=chat.bos, eos_token=chat.eos)
        try:
            self._template = environment.from_string(chat.template)
        except jinja2.TemplateSyntaxError as error:
            raise UsageError(
                f"the chat template is none: line {error.lineno}: {error.message}", remedy="correct `finetune.template`"
            ) from error

    def render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """The conversation's text; with `prompt` it ends where the assistant's next answer begins."""
        return self._template.render(messages=list(messages), add_generation_prompt=prompt)

    def segments(self, messages: Sequence[Message]) -> Iterator[Segment]:
        """The conversation's text in order, cut where answers begin and end.

        Raises:
            UsageError: the template cannot render it, or writes a turn otherwise when more turns follow.
        """
        try:
            whole, at, done = self.render(messages), 0, 0
            for number, message in enumerate(messages):
                if message["role"] != "assistant":
                    continue
                asked = self.render(messages[:number], prompt=True)
                answered = self.render(messages[: number + 1])
                if not (len(asked) >= at and answered.startswith(asked) and whole.startswith(answered)):
                    raise UsageError(
                        f"the chat template writes turn {number + 1} of {_name(messages)} otherwise when it is asked "
                        "for, or when other turns follow: its answers cannot be told apart",
                        remedy="set `finetune.template` to one that writes every turn in one way, with "
                        "`add_generation_prompt` as the beginning of the assistant's",
                    )
                yield Segment(whole[at : len(asked)], False, messages[done:number])
                yield Segment(whole[len(asked) : len(answered)], True, [message])
                at, done = len(answered), number + 1
            yield Segment(whole[at:], False, messages[done:])
        # a template may also divide a text by a number: whatever it raises is its own
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"the chat template cannot write {_name(messages)}: {error}",
                remedy="take the conversation out, or set `finetune.template`",
            ) from error


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks answers for transformers; here its body is simply written."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.If(jinja2.nodes.Const(True), body, [], []).set_lineno(line)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _name(messages: Sequence[Message]) -> str:
    content = next((message["content"] for message in messages if message["role"] != "system"), "")
    return f"the conversation that begins {content[:60]!r}"
