"""Conversations to marked token ids. Each answer, and what lies between two, is tokenized by itself, as a program that
generates would do it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdforge.chat import ChatTemplate, Message, Segment
from pdforge.errors import StoreError
from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.models import Tokenizer
from pdforge.store.encoder import Encoder
from pdforge.store.tokens import LEARNT, STARTS, StoredDtype


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
