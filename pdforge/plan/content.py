"""What a plan must know of files outside the recipe: tokenizers and teachers, by content and not by place."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from pdforge.errors import EnvironmentFault, UsageError
from pdforge.identity import identity
from pdforge.recipe.hub import is_hub_id
from pdforge.recipe.models import Corpus, HuggingFaceCorpus, MixtureCorpus, PretrainedTokenizer, TrainedTokenizer

Located = TypeVar("Located", bound=BaseModel)

_SAMPLE = 1 << 20
"""Bytes read of each end of a checkpoint's file: weights that differ at all differ there."""


class TokenizerFacts(NamedTuple):
    """What the plan knows of a tokenizer."""

    vocabulary: int
    """Rows of the embedding."""
    identity: dict[str, Any]
    """What names it in an identity."""


def tokenizer_facts(tokenizer: TrainedTokenizer | PretrainedTokenizer) -> TokenizerFacts:
    """Vocabulary and identity of a tokenizer: of a local file its content counts, of a hub id its name and revision.

    Raises:
        EnvironmentFault: the local file is missing or is no `tokenizer.json`.
        UsageError: the vocabulary is smaller than the tokenizer, or is needed and not given.
    """
    if isinstance(tokenizer, TrainedTokenizer):
        return TokenizerFacts(tokenizer.vocabulary, tokenizer.model_dump(mode="json"))
    file = _tokenizer_file(tokenizer)
    if file is None:
        if tokenizer.vocabulary is None:
            raise UsageError(
                f"data.tokenizer: the vocabulary of {tokenizer.path!r} is not known before it is downloaded",
                remedy="set data.tokenizer.vocabulary to the rows of its embedding",
            )
        return TokenizerFacts(tokenizer.vocabulary, tokenizer.model_dump(mode="json"))
    content = _tokenizer_content(file)
    size = _tokenizer_size(file, content)
    if tokenizer.vocabulary is not None and tokenizer.vocabulary < size:
        raise UsageError(
            f"data.tokenizer.vocabulary is {tokenizer.vocabulary:,}, but {file} holds {size:,} tokens",
            remedy=f"set it to {size} or more, or leave it out",
        )
    vocabulary = tokenizer.vocabulary or size
    named = {"kind": tokenizer.kind, "sha256": hashlib.sha256(content).hexdigest()}
    return TokenizerFacts(vocabulary, {**named, "vocabulary": vocabulary, "separator": tokenizer.separator})


def fingerprint_folder(folder: Path) -> str:
    """Identity of a model's files, or of its only one: their names, sizes and a sample of their bytes."""
    digest = hashlib.sha256()
    for file in [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder)}\0{size}\0".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLE))
            stream.seek(max(0, size - _SAMPLE))
            digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()


def fingerprint_texts(folder: Path) -> str:
    """Identity of files that people write: their names and all of their bytes; not of what Python compiled of them."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        with file.open("rb") as stream:
            digest.update(f"{file.relative_to(folder)}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()


def written_fingerprint(corpora: Sequence[Corpus]) -> str:
    """Names corpora by what the recipe says of them: for plans made where they cannot be read, and never run."""
    return identity([corpus.model_dump(mode="json") for corpus in corpora])


def _tokenizer_file(tokenizer: PretrainedTokenizer) -> Path | None:
    """The local `tokenizer.json`, or None where the path is a hub id (`organisation/name`)."""
    path = Path(tokenizer.path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.is_file():
        return path
    if is_hub_id(tokenizer.path):
        return None
    raise EnvironmentFault(
        f"data.tokenizer.path: there is no {path}", remedy="name a folder with a tokenizer.json, or the file itself"
    )


def _tokenizer_content(file: Path) -> bytes:
    """The `tokenizer.json` itself, or the one that a GGUF file says."""
    if file.suffix != ".gguf":
        return file.read_bytes()
    from pdforge.gguf import tokenizer_of  # noqa: PLC0415 - few recipes have such a tokenizer

    return tokenizer_of(file, "data.tokenizer.path")


def _tokenizer_size(file: Path, content: bytes) -> int:
    """Highest token id plus one."""
    try:
        tokenizer = json.loads(content)
        vocabulary, added = tokenizer["model"]["vocab"], tokenizer.get("added_tokens") or []
        # BPE and WordPiece map text to id; Unigram lists [text, score], its ids are the positions
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        return 1 + max(ids + [token["id"] for token in added])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvironmentFault(
            f"data.tokenizer.path: {file} is not a saved tokenizer ({type(error).__name__}: {error})",
            remedy="name a tokenizer.json as saved by `tokenizers` or `transformers`",
        ) from error


def absolute(part: Located) -> Located:
    """A corpus or tokenizer with a local path made absolute: a job's working directory is its own."""
    if isinstance(part, MixtureCorpus):
        sources = tuple(one.model_copy(update={"corpus": absolute(one.corpus)}) for one in part.sources)
        return part.model_copy(update={"sources": sources})
    path = getattr(part, "path", None)
    if path is None or "://" in path:
        return part
    if isinstance(part, PretrainedTokenizer | HuggingFaceCorpus) and not Path(path).exists():
        return part  # a hub id
    return part.model_copy(update={"path": str(Path(path).absolute())})
