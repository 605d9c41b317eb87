"""Corpus to token store. Each step publishes what it finished: a killed build goes on where it was, to the same bytes.

tokenizer.json          trained or copied
.build/part-N.bin       encoded documents: ids, and length, hash and text bytes of each
.build/<split>.stream   ids of the split's documents, end to end
<split>-N.bin           sequences cut from the stream, shuffled
manifest.json
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pdforge.errors import StoreError, StoreMismatch, StoreMissing
from pdforge.recipe.models import Corpus, Tokenizer
from pdforge.store.corpus import documents
from pdforge.store.encoder import Encoder, tokenizer_json
from pdforge.store.files import Folder, publish, remove_leftovers
from pdforge.store.manifest import Shard, read_manifest, write_manifest
from pdforge.store.shards import ShardReader, write_shard_file
from pdforge.store.tokens import (
    KIND,
    TOKENIZER_FILE,
    Split,
    SplitName,
    TokenManifest,
    content_hash,
    tokenizer_hash,
)

Progress = Callable[[dict[str, Any]], None]

_PART_BYTES = 1 << 24
"""Text of one part."""
_BATCH_BYTES = 1 << 21
"""Text that is encoded at once."""
_SHARD_BYTES = 1 << 26
_SHARD_SEQUENCES = 1 << 16


@dataclass(frozen=True)
class _Documents:
    """What is known of the documents read so far."""

    parts: list[Path]
    tokens: NDArray[np.int64]
    """Ids of each, the separator included."""
    hashes: NDArray[np.uint64]
    text_bytes: NDArray[np.int64]
    per_part: list[int]


def build_token_store(
    output: Path,
    *,
    corpus: Sequence[Corpus],
    tokenizer: Tokenizer,
    sequence_length: int,
    train_sequences: int,
    validation_sequences: int,
    seed: int,
    identity: str,
    progress: Progress | None = None,
) -> TokenManifest:
    """Build the token store at `output`, or what is missing of it, and return its manifest. One process at a time.

    A split's text is cut into sequences of tokens [i·L, (i+1)·L]: the last is the label of position L-1, and the first
    token of the next sequence. The held-out split takes the documents of lowest hash, so that identical documents are
    never in both.
    `progress` receives `{"phase", "done", "total", "unit"}`.

    Raises:
        StoreError: the corpus holds too little text, or cannot be tokenized as asked.
        StoreMismatch: `output` holds the store of another stage.
        EnvironmentFault: a file or a package is missing.
    """
    report = progress or (lambda _: None)
    folder, build = Folder(output), output / ".build"
    try:
        manifest = read_manifest(folder, KIND, TokenManifest)
    except StoreMissing:
        pass
    else:
        if manifest.identity != identity:
            raise StoreMismatch(f"{output}: identity is {manifest.identity!r}, not {identity!r}")
        shutil.rmtree(build, ignore_errors=True)
        return manifest
    build.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    remove_leftovers(build)

    source = _tokenizer(output, tokenizer, corpus, report)
    encoder = Encoder(source, tokenizer)
    needs = {
        name: sequences * sequence_length + 1 if sequences else 0
        for name, sequences in (("train", train_sequences), ("validation", validation_sequences))
    }
    found = _encode(build, corpus, encoder, (identity, tokenizer_hash(source), seed), needs=needs, report=report)
    held_out = _held_out(found, needs)
    packer = _Packer(output, found, encoder.dtype, length=sequence_length, seed=seed, identity=identity)
    splits = {
        "train": packer.pack("train", ~held_out, train_sequences, report),
        "validation": packer.pack("validation", held_out, validation_sequences, report),
    }
    facts: dict[str, Any] = {
        "identity": identity,
        "tokenizer": tokenizer_hash(source),
        "vocabulary": encoder.vocabulary,
        "separator": encoder.separator,
        "sequence_length": sequence_length,
        "seed": seed,
        "dtype": encoder.dtype.name,
        "shard_sequences": packer.shard_sequences,
    }
    manifest = TokenManifest(**facts, **splits, content=content_hash(facts, packer.sums))
    write_manifest(folder, KIND, manifest)
    shutil.rmtree(build)
    return manifest


def _tokenizer(output: Path, tokenizer: Tokenizer, corpus: Sequence[Corpus], report: Progress) -> bytes:
    path = output / TOKENIZER_FILE
    if not path.exists():
        report({"phase": "tokenizer", "done": 0, "total": 1, "unit": "tokenizers"})
        publish(path, [tokenizer_json(tokenizer, corpus)])
    return path.read_bytes()


# --- encode ---------------------------------------------------------------------------------------------------------


def _encode(
    build: Path,
    corpus: Sequence[Corpus],
    encoder: Encoder,
    key: tuple[Any, ...],
    *,
    needs: dict[str, int],
    report: Progress,
) -> _Documents:
    """Encode part after part until both splits can be filled, or raise StoreError at the end of the corpus."""
    parts: list[Path] = []
    columns: list[tuple[NDArray[Any], ...]] = []
    done, needed = 0, sum(needs.values())
    for number, texts in enumerate(_grouped(documents(corpus), _PART_BYTES)):
        path = build / f"part-{number:06d}.bin"
        part = _read_part(path, key)
        if part is None:
            _write_part(path, texts, encoder, key)
            part = _read_part(path, key)
            assert part is not None
        parts.append(path)
        columns.append(part)
        done += int(part[0].sum())
        report({"phase": "encode", "done": min(done, needed), "total": needed, "unit": "tokens"})
        if done >= needed:
            found = _documents(parts, columns)
            if not _shortage(found, needs):
                return found
    shortage = _shortage(_documents(parts, columns), needs) if parts else "the corpus has no text"
    raise StoreError(
        shortage,
        remedy="lower `data.train_tokens` or `data.validation_tokens`, or add text to `data.corpus`",
    )


def _documents(parts: list[Path], columns: list[tuple[NDArray[Any], ...]]) -> _Documents:
    tokens, hashes, text_bytes = (np.concatenate(column) for column in zip(*columns, strict=True))
    return _Documents(list(parts), tokens, hashes, text_bytes, [len(column[0]) for column in columns])


def _shortage(found: _Documents, needs: dict[str, int]) -> str:
    """What is missing to fill both splits, or empty."""
    held_out = _held_out(found, needs)
    have = {"train": int(found.tokens[~held_out].sum()), "validation": int(found.tokens[held_out].sum())}
    if all(have[name] >= needs[name] for name in needs):
        return ""
    return (
        f"the corpus holds {int(found.tokens.sum()):,} tokens in {len(found.tokens):,} documents; "
        f"{sum(needs.values()):,} are needed: {needs['train']:,} for training and {needs['validation']:,} from other "
        f"documents for validation (held out whole: {have['validation']:,} tokens, which leaves {have['train']:,})"
    )


def _held_out(found: _Documents, needs: dict[str, int]) -> NDArray[np.bool_]:
    """Which documents are the held-out split's: those of lowest hash, as many as fill it."""
    if not needs["validation"]:
        return np.zeros(len(found.hashes), np.bool_)
    order = np.argsort(found.hashes, kind="stable")
    enough = int(np.searchsorted(np.cumsum(found.tokens[order]), needs["validation"]))
    last = found.hashes[order[min(enough, len(order) - 1)]]
    held_out: NDArray[np.bool_] = found.hashes <= last
    return held_out


def _write_part(path: Path, texts: list[str], encoder: Encoder, key: tuple[Any, ...]) -> None:
    rows = [row for batch in _grouped(texts, _BATCH_BYTES) for row in encoder.encode(batch)]
    data = [text.encode() for text in texts]
    seed = key[-1]
    columns = (
        np.array([len(row) for row in rows], "<i8"),
        np.array([xxhash.xxh3_64_intdigest(text, seed=seed) for text in data], "<u8"),
        np.array([len(text) for text in data], "<i8"),
    )
    blocks = [np.concatenate(rows).tobytes(), *(column.tobytes() for column in columns)]
    write_shard_file(path, blocks, {"key": list(key)})


def _read_part(path: Path, key: tuple[Any, ...]) -> tuple[NDArray[Any], ...] | None:
    """Length, hash and text bytes of a part's documents; None where the part is not there, or another build's."""
    if not path.exists():
        return None
    reader = ShardReader(Folder(path.parent).file(path.name))
    if reader.meta != {"key": list(key)}:
        return None
    return tuple(np.frombuffer(reader.block(n), dtype) for n, dtype in ((1, "<i8"), (2, "<u8"), (3, "<i8")))


def _grouped(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Consecutive texts, in groups that reach `size` bytes."""
    group: list[str] = []
    total = 0
    for text in texts:
        group.append(text)
        total += len(text.encode())
        if total >= size:
            yield group
            group, total = [], 0
    if group:
        yield group


# --- pack -----------------------------------------------------------------------------------------------------------


class _Packer:
    """Cuts the documents of a split into shuffled sequences."""

    def __init__(
        self, output: Path, found: _Documents, dtype: np.dtype[Any], *, length: int, seed: int, identity: str
    ) -> None:
        self._output, self._found, self._dtype, self._length, self._seed = output, found, dtype, length, seed
        self._meta = {"identity": identity}
        self.sums: list[bytes] = []
        """Checksums of all sequences packed so far."""
        self.shard_sequences = max(1, min(_SHARD_SEQUENCES, _SHARD_BYTES // ((length + 1) * dtype.itemsize)))

    def pack(self, name: SplitName, chosen: NDArray[np.bool_], sequences: int, report: Progress) -> Split:
        """Write the split's shards (those that are missing)."""
        needed = sequences * self._length + 1 if sequences else 0
        stream = self._stream(name, chosen, needed)
        order = shuffled(sequences, self._seed)
        shards = []
        for start in range(0, sequences, self.shard_sequences):
            number = start // self.shard_sequences
            rows = order[start : start + self.shard_sequences]
            shards.append(self._shard(f"{name}-{number:06d}.bin", stream, rows))
            done = min(start + self.shard_sequences, sequences)
            report({"phase": f"pack {name}", "done": done, "total": sequences, "unit": "sequences"})
        tokens = self._found.tokens[chosen]
        used = int(np.searchsorted(np.cumsum(tokens), needed)) + 1 if sequences else 0
        return Split(
            sequences=sequences,
            documents=used,
            text_bytes=int(self._found.text_bytes[chosen][:used].sum()),
            shards=tuple(shards),
        )

    def _shard(self, name: str, stream: NDArray[Any], rows: NDArray[np.int64]) -> Shard:
        path, folder, step = self._output / name, Folder(self._output), self._length
        if not path.exists() or ShardReader(folder.file(name)).meta != self._meta:
            write_shard_file(path, [stream[row * step : (row + 1) * step + 1].tobytes() for row in rows], self._meta)
        reader = ShardReader(folder.file(name))
        self.sums.append(reader.sums.tobytes())
        return Shard(file=name, blocks=len(reader), bytes=reader.file.size, xxh3=reader.digest)

    def _stream(self, name: SplitName, chosen: NDArray[np.bool_], needed: int) -> NDArray[Any]:
        path = self._output / ".build" / f"{name}.stream"
        if not path.exists():
            publish(path, self._chunks(chosen, needed))
        return np.memmap(path, self._dtype, "r") if needed else np.empty(0, self._dtype)

    def _chunks(self, chosen: NDArray[np.bool_], needed: int) -> Iterator[bytes]:
        """The first `needed` ids of the chosen documents."""
        start = 0
        for path, documents_ in zip(self._found.parts, self._found.per_part, strict=True):
            if needed <= 0:
                return
            stop = start + documents_
            ids = np.frombuffer(ShardReader(Folder(path.parent).file(path.name)).block(0), self._dtype)
            ids = ids[np.repeat(chosen[start:stop], self._found.tokens[start:stop])][:needed]
            needed -= len(ids)
            start = stop
            yield ids.tobytes()


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """A permutation of range(count) that depends on the two numbers alone, on no library's version (splitmix64)."""
    x = np.arange(count, dtype=np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15) % (1 << 64))
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable")
