"""Text to token ids, by the `tokenizers` library: trained on the corpus, or read from a `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdforge.errors import EnvironmentFault, StoreError
from pdforge.gguf import tokenizer_of
from pdforge.pretrained import TOKENIZER, fetch
from pdforge.recipe.hub import is_hub_id
from pdforge.recipe.models import Corpus, PretrainedTokenizer, Tokenizer
from pdforge.recipe.parts.data import SEPARATOR
from pdforge.store.corpus import sources
from pdforge.store.tokens import StoredDtype

_TRAINING_BYTES = 1 << 28
"""A tokenizer is trained on at most this much text: of each source its share, from its start."""

_PIECE = 1 << 20
"""Characters that are encoded at once; a longer document is cut at line ends, so that memory stays small."""


def tokenizer_json(tokenizer: Tokenizer, corpus: Sequence[Corpus]) -> bytes:
    """The `tokenizer.json` that a recipe means: trained (the same for the same text), or the file as it is.

    Raises:
        EnvironmentFault: `tokenizers` is not installed, there is no such file, or the hub does not give it.
    """
    if isinstance(tokenizer, PretrainedTokenizer):
        path = Path(tokenizer.path)
        if is_hub_id(tokenizer.path):
            path = fetch(tokenizer.path, tokenizer.revision, "data.tokenizer.path", [TOKENIZER])
        if path.suffix == ".gguf":
            return tokenizer_of(path, "data.tokenizer.path")
        path = path / TOKENIZER if path.is_dir() else path
        try:
            return path.read_bytes()
        except OSError as error:
            raise EnvironmentFault(
                f"{path}: tokenizer cannot be read: {error.strerror}",
                remedy="`data.tokenizer.path` is a tokenizer.json, a folder or repository with one, or a GGUF file",
            ) from error
    library = _library()
    model = library.Tokenizer(library.models.BPE())
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=tokenizer.vocabulary,
        special_tokens=[SEPARATOR],
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(_sample(corpus), trainer)
    return str(model.to_str(pretty=False)).encode()


class Encoder:
    """Documents to ids: the separator, then the text. What looks like a special token in the text is plain text.

    Raises:
        EnvironmentFault: `tokenizers` is not installed.
        StoreError: no tokenizer, no such separator in it, or more tokens than the vocabulary.
    """

    def __init__(self, source: bytes, tokenizer: Tokenizer) -> None:
        library = _library()
        try:
            self.model = library.Tokenizer.from_str(source.decode())
        except Exception as error:  # the library raises bare Exception for whatever it cannot parse
            raise StoreError(f"not a tokenizer.json: {error}", remedy="check `data.tokenizer.path`") from error
        self.model.no_truncation()
        self.model.no_padding()
        self.model.encode_special_tokens = True
        separator = tokenizer.separator
        found = self.model.token_to_id(separator)
        if found is None:
            raise StoreError(
                f"the tokenizer has no token {separator!r}", remedy="set `data.tokenizer.separator` to one that it has"
            )
        self.separator: int = found
        size = max(self.model.get_vocab(with_added_tokens=True).values()) + 1
        self.vocabulary: int = tokenizer.vocabulary or size
        if self.vocabulary < size:
            raise StoreError(
                f"the tokenizer has {size:,} tokens, `data.tokenizer.vocabulary` is {self.vocabulary:,}",
                remedy=f"set it to {size} or more, or leave it out",
            )
        self.dtype: np.dtype[Any] = np.dtype("<u2" if self.vocabulary <= 1 << 16 else "<u4")
        self.stored: StoredDtype = "uint16" if self.vocabulary <= 1 << 16 else "uint32"

    def encode(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """The ids of each document, in the store's dtype."""
        pieces = [list(_pieces(text)) for text in texts]
        flat = [piece for document in pieces for piece in document]
        encoded = iter(self.model.encode_batch_fast(flat, add_special_tokens=False))
        first = np.array([self.separator], self.dtype)
        # a list of ids becomes an array at once: loops over ids in Python cost as much as the encoding
        return [
            np.concatenate([first, *(np.array(next(encoded).ids, self.dtype) for _ in document)]) for document in pieces
        ]


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        stop = start + _PIECE
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop


def _sample(corpus: Sequence[Corpus]) -> Iterator[str]:
    for source in sources(corpus):
        yield from _at_most(source.documents(), int(source.share * _TRAINING_BYTES))


def _at_most(texts: Iterable[str], size: int) -> Iterator[str]:
    for text in texts:
        yield text
        size -= len(text.encode())
        if size <= 0:
            return


def _library() -> Any:
    try:
        import tokenizers  # noqa: PLC0415 - only this stage needs it
    except ImportError as error:
        raise EnvironmentFault("the `tokenizers` package is missing", remedy="pip install 'pdforge[train]'") from error
    return tokenizers
