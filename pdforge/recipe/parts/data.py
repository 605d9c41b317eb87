"""`data`: what is learnt from."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pdforge.recipe.parts.base import Model, by_default
from pdforge.recipe.units import Count, Real, Seed, Size, Text


class StandardLibraryCorpus(Model):
    """The source files of the standard library of the Python that runs the job: text that every machine has."""

    kind: Literal["python-stdlib"]
    bytes: Size = 12_000_000
    """Take files, in a fixed pseudo-random order, until this many bytes are reached."""


class TextCorpus(Model):
    """Plain text files, one document a file."""

    kind: Literal["text"]
    path: Text
    """A file or glob, local or any fsspec URL (`s3://…`)."""


class JsonLinesCorpus(Model):
    """JSON Lines, one document a row; `.gz` and `.zst` are read as they are."""

    kind: Literal["jsonl"]
    path: Text
    """A file or glob, local or any fsspec URL (`s3://…`)."""
    text: Text = "text"
    """The key that holds the document's text."""


class ParquetCorpus(Model):
    """Parquet files, one document a row."""

    kind: Literal["parquet"]
    path: Text
    """A file or glob, local or any fsspec URL (`s3://…`)."""
    text: Text = "text"
    """The column that holds the document's text."""


class HuggingFaceCorpus(Model):
    """A data set of the Hugging Face hub, one document a row."""

    kind: Literal["huggingface"]
    path: Text
    """A hub id such as `HuggingFaceFW/fineweb-edu`."""
    name: Text | None = None
    """Its configuration, where it has several."""
    split: Text = "train"
    """The split that documents are taken from."""
    revision: Text | None = None
    """Git revision; without one the data may change under a finished run."""
    text: Text = "text"
    """The column that holds the document's text."""


SourceCorpus = Annotated[
    StandardLibraryCorpus | TextCorpus | JsonLinesCorpus | ParquetCorpus | HuggingFaceCorpus,
    Field(discriminator="kind"),
]
"""One place that text comes from."""


class Source(Model):
    """One source of a mixture."""

    corpus: SourceCorpus
    """Where its text comes from."""
    weight: Annotated[Real, Field(gt=0)] = 1.0
    """Its share of the tokens, relative to the other sources' weights."""


class MixtureCorpus(Model):
    """Several sources, mixed by weight."""

    kind: Literal["mixture"]
    sources: Annotated[tuple[Source, ...], Field(min_length=1, max_length=1000)]
    """The sources and their weights."""


Corpus = Annotated[
    StandardLibraryCorpus | TextCorpus | JsonLinesCorpus | ParquetCorpus | HuggingFaceCorpus | MixtureCorpus,
    Field(discriminator="kind"),
]


SEPARATOR = "<|endoftext|>"
"""The token that starts every document; of a trained tokenizer always, its id is 0."""


class TrainedTokenizer(Model):
    """A byte-level BPE tokenizer, trained on the corpus by the `tokenizers` library."""

    kind: Literal["trained"]
    vocabulary: Annotated[Count, Field(ge=257)]
    """Size of the vocabulary: 256 bytes, the document separator, and merges."""

    @property
    def separator(self) -> str:
        """The token that starts every document."""
        return SEPARATOR


class PretrainedTokenizer(Model):
    """An existing Hugging Face tokenizer (`tokenizer.json`), or that of a GGUF file."""

    kind: Literal["pretrained"] = "pretrained"
    path: Text
    """A local directory or file (`tokenizer.json`, or a `.gguf`), or a hub id such as `zai-org/glm-4-9b-hf`."""
    revision: Text | None = None
    """Git revision, where the path is a hub id."""
    vocabulary: Annotated[Count, Field(ge=2)] | None = None
    """Rows of the embedding; at least the tokenizer's own size, which is the default where the path is local."""
    separator: Text = SEPARATOR
    """The token that starts every document."""


Tokenizer = Annotated[
    TrainedTokenizer | PretrainedTokenizer,
    Field(discriminator="kind"),
    BeforeValidator(by_default("kind", "pretrained")),
]


class Data(Model):
    """What is learnt from."""

    corpus: Corpus
    """Where the text comes from."""
    tokenizer: Tokenizer
    """How text becomes tokens; teacher and student share it."""
    sequence_length: Annotated[Count, Field(ge=8)]
    """Tokens of one packed sequence."""
    train_tokens: Count
    """Tokens of the training split. More than the corpus holds is an error."""
    validation_tokens: Count
    """Tokens of the held-out split: other documents, never trained on."""
    seed: Seed = 0
    """Orders documents and sequences."""
