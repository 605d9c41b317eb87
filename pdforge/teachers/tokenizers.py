"""Whether teacher and student mean the same by a token id."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pdforge.errors import EnvironmentFault, StoreMismatch
from pdforge.gguf import tokenizer_of
from pdforge.identity import identity
from pdforge.pretrained import TOKENIZER, library

_REMEDY = "make data.tokenizer the teacher's own: {kind: pretrained, path: …}"


def teacher_tokenizer(folder: Path, gguf: str | None, place: str) -> str:
    """`tokenizer.json` of a model.

    Raises:
        EnvironmentFault: it has no tokenizer that can be compared.
    """
    if gguf is not None:
        return tokenizer_of(folder / gguf, place).decode()
    file = folder / TOKENIZER
    if file.is_file():
        return file.read_text(encoding="utf-8")
    try:
        loaded = library("transformers").AutoTokenizer.from_pretrained(folder)
        return str(loaded.backend_tokenizer.to_str())
    except Exception as error:  # transformers raises whatever its many tokenizers meet
        raise EnvironmentFault(
            f"{place}: {folder} has no tokenizer, so nothing tells whether its token ids mean what the student's do: "
            f"{type(error).__name__}: {error}",
            remedy=f"put the model's {TOKENIZER} there",
        ) from error


def vocabulary_size(tokenizer: str) -> int:
    """Highest token id of a `tokenizer.json` plus one: ids from there on are padding of an embedding."""
    return 1 + max(_vocabulary(json.loads(tokenizer)).values())


def require_same_tokenizer(teacher: str, student: str, texts: Sequence[str], place: str) -> str:
    """Refuse a teacher that means something else by a token id, or reads a text as other ids.

    Args:
        teacher: `tokenizer.json` of the teacher.
        student: the same of the token store.
        texts: on which both must give the same ids.
        place: the recipe's field of the teacher, for messages.

    Returns:
        The hash in which both agree, of the normalised vocabulary and merges.

    Raises:
        StoreMismatch: they differ; says in what.
    """
    mine, theirs = json.loads(student), json.loads(teacher)
    ours, other = _meaning(mine), _meaning(theirs)
    if identity(ours) != identity(other):
        raise StoreMismatch(
            f"{place}: the teacher's tokenizer is not the student's: {next(_differences(other, ours))}", remedy=_REMEDY
        )
    reads, read = _encoder(teacher), _encoder(student)
    for text in texts:
        a, b = reads.encode(text, add_special_tokens=False).ids, read.encode(text, add_special_tokens=False).ids
        if a != b:
            at = next(i for i, (x, y) in enumerate(zip([*a, -1], [*b, -1], strict=False)) if x != y)
            there, here = (
                [decoder.decode([one]) for one in ids[at : at + 4]] for decoder, ids in ((reads, a), (read, b))
            )
            raise StoreMismatch(
                f"{place}: teacher and student have the same tokens, and cut text differently: the teacher reads "
                f"{there}, the student {here}",
                remedy=_REMEDY,
            )
    return identity(ours)


def _encoder(tokenizer: str) -> Any:
    model = library("tokenizers").Tokenizer.from_str(tokenizer)
    model.no_truncation()
    model.no_padding()
    model.encode_special_tokens = True  # as the token store was made
    return model


def _vocabulary(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Token → id, added tokens included."""
    vocabulary = tokenizer["model"]["vocab"]
    if not isinstance(vocabulary, dict):  # Unigram: [text, score], the ids are the positions
        vocabulary = {text: number for number, (text, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}}


def _meaning(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """What the ids mean, in one form: files of several versions write merges in two ways."""
    merges = tokenizer["model"].get("merges") or []
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else list(merge) for merge in merges]
    return {"type": tokenizer["model"].get("type"), "vocabulary": _vocabulary(tokenizer), "merges": pairs}


def _differences(teacher: dict[str, Any], student: dict[str, Any]) -> Iterator[str]:
    """What is different, the worst first."""
    if teacher["type"] != student["type"]:
        yield f"it is {teacher['type']}, the student's {student['type']}"
    there, here = teacher["vocabulary"], student["vocabulary"]
    if len(there) != len(here):
        extra = sorted(there.keys() - here.keys(), key=there.__getitem__) or sorted(here.keys() - there.keys())
        yield f"it has {len(there):,} tokens, the student's {len(here):,} (only one of them has {extra[0]!r})"
    moved = [token for token in here if there.get(token) != here[token]]
    if moved:
        of_teacher = there.get(moved[0])
        yield (
            f"{len(moved):,} of {len(here):,} tokens have other ids ({moved[0]!r} is {here[moved[0]]} for the student, "
            f"{'nothing' if of_teacher is None else of_teacher} for the teacher)"
        )
    number = next(
        (i for i, (a, b) in enumerate(zip(teacher["merges"], student["merges"], strict=False)) if a != b),
        min(len(teacher["merges"]), len(student["merges"])),
    )
    yield f"their merges differ from number {number} on"
