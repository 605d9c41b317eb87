"""Conversations to marked token ids: which tokens are the assistant's answers, and so carry loss.

An answer is what the template adds between the generation prompt of its turn and the end of the turn, the marker that
ends it included: exactly what a model that is asked has to say. Each answer, and what lies between two, is tokenized by
itself, as a program that generates would do it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
import numpy as np
from numpy.typing import NDArray

from pdforge.errors import StoreError
from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.models import Tokenizer
from pdforge.store.conversations import Message
from pdforge.store.encoder import Encoder
from pdforge.store.tokens import LEARNT, STARTS, StoredDtype


class Segment(NamedTuple):
    """A piece of a conversation's text."""

    text: str
    learnt: bool
    """It is an answer."""
    messages: Sequence[Message]
    """The turns that it is made of."""


class ChatTemplate:
    """A compiled template; raises jinja2.TemplateError where it is none."""

    def __init__(self, chat: ChatFormat) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals.update(raise_exception=_refuse, bos_token=chat.bos, eos_token=chat.eos)
        self._template = environment.from_string(chat.template)

    def render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """The conversation's text; with `prompt` it ends where the assistant's next answer begins."""
        return self._template.render(messages=list(messages), add_generation_prompt=prompt)

    def segments(self, messages: Sequence[Message]) -> Iterator[Segment]:
        """The conversation's text in order, cut where answers begin and end.

        Raises:
            StoreError: the template cannot render it, or writes a turn otherwise when more turns follow.
        """
        try:
            whole, at, done = self.render(messages), 0, 0
            for number, message in enumerate(messages):
                if message["role"] != "assistant":
                    continue
                asked = self.render(messages[:number], prompt=True)
                answered = self.render(messages[: number + 1])
                if not (len(asked) >= at and answered.startswith(asked) and whole.startswith(answered)):
                    raise StoreError(
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
            raise StoreError(
                f"the chat template cannot write {_name(messages)}: {error}",
                remedy="take the conversation out, or set `finetune.template`",
            ) from error


class ChatEncoder:
    """Conversations, as `pdforge.store.conversations` has them, to ids with marks; each starts with the separator.

    What looks like a special token in a turn's content is plain text; in what the template writes it is the token.

    Raises:
        EnvironmentFault, StoreError: as `Encoder`.
    """

    dtype: np.dtype[Any] = np.dtype("<u4")
    stored: StoredDtype = "marked-uint32"

    def __init__(self, source: bytes, tokenizer: Tokenizer, chat: ChatFormat) -> None:
        plain, special = Encoder(source, tokenizer), Encoder(source, tokenizer)
        special.model.encode_special_tokens = False
        self.separator, self.vocabulary = plain.separator, plain.vocabulary
        self._models = {False: plain.model, True: special.model}
        self._specials = [token.content for token in plain.model.get_added_tokens_decoder().values() if token.special]
        self._template = ChatTemplate(chat)

    def encode(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """The ids of each conversation, uint32, with their marks."""
        return [self._conversation(json.loads(text)) for text in texts]

    def _conversation(self, messages: list[Message]) -> NDArray[Any]:
        rows = [np.array([self.separator], self.dtype)]
        for segment in self._template.segments(messages):
            ids = [i for text, markup in self._pieces(segment) for i in self._ids(text, markup=markup)]
            rows.append(np.array(ids, self.dtype) | np.uint32(LEARNT if segment.learnt else 0))
        joined = np.concatenate(rows)
        if joined[1:2] == self.separator:  # the template writes it too
            joined = joined[1:]
        joined[0] |= np.uint32(STARTS)
        return joined

    def _pieces(self, segment: Segment) -> Iterator[tuple[str, bool]]:
        """The text in order, and whether special tokens in it are meant."""
        rest = segment.text
        for message in segment.messages:
            content = message["content"].strip()
            if any(special in content for special in self._specials):
                before, found, rest = rest.partition(content)
                if not found:
                    raise StoreError(
                        f"the chat template rewrites a turn that holds the text of a special token: {content[:60]!r}",
                        remedy="take the conversation out, or set `finetune.template`",
                    )
                yield before, True
                yield content, False
        yield rest, True

    def _ids(self, text: str, *, markup: bool) -> list[int]:
        ids: list[int] = self._models[markup].encode(text, add_special_tokens=False).ids
        return ids


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
