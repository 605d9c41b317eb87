"""The text of a corpus, document by document in a fixed order."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from pdforge.recipe.models import (
    Corpus,
    HuggingFaceCorpus,
    JsonLinesCorpus,
    MixtureCorpus,
    ParquetCorpus,
    StandardLibraryCorpus,
    TextCorpus,
)
from pdforge.store import readers
from pdforge.store.conversations import conversation, docstring_conversations
from pdforge.store.corpus_files import grouped, matches, standard_library

Unit = Callable[[], Iterator[str]]
"""Reads a piece of a corpus, such as a file, from its start: documents that are not blank."""


def units(corpora: Sequence[Corpus], *, conversations: bool = False) -> list[Unit]:
    """The corpora in pieces that can be read apart; end to end, they are `documents`.

    Of `conversations` the corpora's `text` is the key of the turns, and a document is one of
    `pdforge.store.conversations`.

    Raises:
        EnvironmentFault: a pattern matches no file, or its place cannot be listed.
    """
    return [_documents_of(unit) for corpus in corpora for unit in _units(corpus, conversations)]


class WeightedUnits(NamedTuple):
    """One source of text and its share of the tokens, in (0, 1]."""

    name: str
    share: float
    units: list[Unit]

    def documents(self) -> Iterator[str]:
        """All that it holds, in order."""
        return chain.from_iterable(unit() for unit in self.units)


def sources(corpora: Sequence[Corpus], *, conversations: bool = False) -> list[WeightedUnits]:
    """The sources of a mixture; other corpora follow each other as one source. Arguments and errors as of `units`."""
    if len(corpora) == 1 and isinstance(corpora[0], MixtureCorpus):
        mixed = corpora[0].sources
        total = sum(source.weight for source in mixed)
        return [
            WeightedUnits(
                f"source {number} of the corpus",
                source.weight / total,
                units([source.corpus], conversations=conversations),
            )
            for number, source in enumerate(mixed, start=1)
        ]
    return [WeightedUnits("the corpus", 1.0, units(corpora, conversations=conversations))]


def documents(corpora: Sequence[Corpus]) -> Iterator[str]:
    """Every document that is not blank, in an order that depends on the corpora alone.

    Raises:
        EnvironmentFault: a file is missing or cannot be read, or a pattern matches none.
        StoreError: a file's content is not what its kind says; names file and line.
    """
    return chain.from_iterable(unit() for unit in units(corpora))


def _documents_of(unit: Unit) -> Unit:
    def read() -> Iterator[str]:
        for text in unit():
            if text.strip():
                yield _without_lone_surrogates(text)

    return read


def _units(corpus: Corpus, conversations: bool = False) -> list[Unit]:
    document = conversation if conversations else readers.text
    if isinstance(corpus, MixtureCorpus):
        return [unit for source in corpus.sources for unit in _units(source.corpus, conversations)]
    if isinstance(corpus, StandardLibraryCorpus):
        files = partial(standard_library, corpus.bytes)
        if conversations:
            return [lambda: docstring_conversations(files())]
        return [lambda: (data.decode() for _, data in files())]
    if isinstance(corpus, HuggingFaceCorpus):
        return readers.dataset(corpus, document)
    filesystem, sizes = matches(corpus.path)
    return [partial(_texts, filesystem, files, corpus, document) for files in grouped(sizes)]


def _texts(
    filesystem: Any,
    files: Sequence[str],
    corpus: TextCorpus | JsonLinesCorpus | ParquetCorpus,
    document: readers.Document,
) -> Iterator[str]:
    for path in files:
        if isinstance(corpus, TextCorpus):
            yield from readers.plain_text(filesystem, path)
        elif isinstance(corpus, JsonLinesCorpus):
            yield from readers.json_lines(filesystem, path, corpus.text, document)
        else:
            yield from readers.parquet(filesystem, path, corpus.text, document)


def _without_lone_surrogates(text: str) -> str:
    """JSON can spell half of a surrogate pair, which no encoder accepts: it becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
