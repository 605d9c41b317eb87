"""The token store: packed sequences of both splits, read by sample index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from pdforge.errors import StoreMissing
from pdforge.identity import identity
from pdforge.layout import TOKENIZER_FILE
from pdforge.store.files import DamagedFileError, Folder
from pdforge.store.manifest import Kind, Part, Shard, read_manifest
from pdforge.store.shardset import Damage, ShardSet

KIND: Kind = "pdforge-tokens"

SplitName = Literal["train", "validation"]
Batch = tuple[NDArray[np.int32], NDArray[np.int32]]
"""tokens, positions."""
LabelledBatch = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]
"""tokens, positions, and whether a label carries loss."""

StoredDtype = Literal["uint16", "uint32", "marked-uint32"]
"""How a token is stored. Marked ones say more than their id: see below."""
LEARNT = 1 << 31
"""Mark of a token that carries loss where it is a label. Without marks every token does."""
STARTS = 1 << 30
"""Mark of a document's first token. Without marks a separator is one, and nothing else."""
_ID = STARTS - 1


class Split(Part):
    """One split of a token store."""

    sequences: int
    documents: int
    """Documents that it holds, whole or in part."""
    text_bytes: int
    """UTF-8 bytes of these documents."""
    shards: tuple[Shard, ...]


class TokenManifest(Part):
    """A whole token store."""

    identity: str
    """Identity of the stage that built it."""
    tokenizer: str
    """xxh3-128 of tokenizer.json, hex."""
    vocabulary: int
    """Rows that an embedding needs."""
    separator: int
    """Id of the token that starts every document."""
    sequence_length: int
    """L: a sequence is L+1 tokens, the last of which is the first of the next one in its text."""
    seed: int
    dtype: StoredDtype
    shard_sequences: int
    train: Split
    validation: Split
    content: str
    """Hash of all tokens of both splits, in order, with what gives them meaning."""

    @property
    def train_sequences(self) -> int:
        """Sequences of the training split."""
        return self.train.sequences

    @property
    def validation_sequences(self) -> int:
        """Sequences of the held-out split."""
        return self.validation.sequences


def content_hash(facts: dict[str, Any], sums: Sequence[bytes]) -> str:
    """The `content` of a manifest, from the checksums of all sequences, training first, and what gives them meaning."""
    meaning = {k: facts[k] for k in ("tokenizer", "vocabulary", "separator", "sequence_length", "dtype")}
    return identity([meaning, xxhash.xxh3_128_hexdigest(b"".join(sums))])


def tokenizer_hash(text: bytes) -> str:
    """The `tokenizer` of a manifest."""
    return xxhash.xxh3_128_hexdigest(text)


class TokenSplit:
    """Sequences of one split, by sample index."""

    def __init__(self, folder: Folder, manifest: TokenManifest, name: SplitName) -> None:
        self.name = name
        self._folder = folder
        self._manifest = manifest
        self._split: Split = getattr(manifest, name)
        self._shards = ShardSet(folder, self._split.shards)
        self._marked = manifest.dtype == "marked-uint32"
        self._dtype = np.dtype("<u2" if manifest.dtype == "uint16" else "<u4")

    def __len__(self) -> int:
        return self._split.sequences

    @property
    def content(self) -> str:
        """Hash of all tokens of the store."""
        return self._manifest.content

    def get(self, index: int) -> Batch:
        """Sample `index`: tokens int32 [L+1] (inputs `[:-1]`, labels `[1:]`), and positions int32 [L] of the inputs.

        Positions restart at 0 where a document starts and at the start of the sequence.

        Raises:
            StoreMissing: no such sample, or its shard is gone.
            StoreDamaged: names file and block.
        """
        tokens, positions = self.get_batch([index])
        return tokens[0], positions[0]

    def get_batch(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Batch:
        """`get` for B samples, stacked: [B, L+1] and [B, L]."""
        tokens, positions, _ = self.get_labelled_batch(indices)
        return tokens, positions

    def get_labelled_batch(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> LabelledBatch:
        """`get_batch`, and whether the label of each position carries loss: bool [B, L]."""
        length = self._manifest.sequence_length
        stored = np.empty((len(indices), length + 1), np.uint32)
        for row, index in enumerate(indices):
            stored[row] = self._row(int(index))
        if not self._marked:
            tokens = stored.astype(np.int32)
            starts = tokens[:, :-1] == self._manifest.separator
            return tokens, positions_of(starts), np.ones((len(tokens), length), np.bool_)
        starts = stored[:, :-1] & np.uint32(STARTS) != 0
        learnt = stored[:, 1:] & np.uint32(LEARNT) != 0
        return (stored & np.uint32(_ID)).astype(np.int32), positions_of(starts), learnt

    def verify(self, *, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
        """Recompute every checksum of every shard; what does not hold."""
        return self._shards.verify(self._parse, workers=workers, progress=progress)

    def _row(self, index: int) -> NDArray[Any]:
        if not 0 <= index < len(self):
            raise StoreMissing(
                f"{self._folder}: no {self.name} sample {index}; it holds 0 to {len(self) - 1}",
                remedy="the run reads more samples than the token store was built with",
            )
        shard, block = divmod(index, self._manifest.shard_sequences)
        reader = self._shards.reader(shard)
        try:
            return self._parse(reader.block(block))
        except ValueError as error:
            raise DamagedFileError(reader.name, str(error), block) from error

    def _parse(self, data: bytes | memoryview) -> NDArray[Any]:
        row = np.frombuffer(data, self._dtype)
        ids = row & np.uint32(_ID) if self._marked else row
        if len(row) != self._manifest.sequence_length + 1 or ids.max() >= self._manifest.vocabulary:
            raise ValueError("not a sequence of this store")
        return row


def positions_of(starts: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Positions int32 [B, L], where documents start [B, L]: 0 there and in the first column, then counting up."""
    column = np.arange(starts.shape[1], dtype=np.int32)
    return column - np.maximum.accumulate(np.where(starts, column, 0), axis=1).astype(np.int32)


class TokenStore:
    """A whole token store, local or behind any fsspec URL. Open it with `TokenStore.open`; it may be pickled."""

    def __init__(self, folder: Folder, manifest: TokenManifest) -> None:
        self.manifest = manifest
        self._folder = folder
        self._splits: dict[str, TokenSplit] = {
            "train": TokenSplit(folder, manifest, "train"),
            "validation": TokenSplit(folder, manifest, "validation"),
        }

    @classmethod
    def open(cls, path: str | Path) -> TokenStore:
        """The store at `path`.

        Raises:
            StoreMissing: no (whole) token store there.
            StoreMismatch: another kind of store, or of a later version.
            StoreDamaged: not what was written.
        """
        folder = Folder(path)
        try:
            return cls(folder, read_manifest(folder, KIND, TokenManifest))
        except StoreMissing:
            raise StoreMissing(
                f"{folder}: no whole token store there", remedy="start its tokenize stage; it goes on where it was"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenStore.open, (self._folder.url,)

    def split(self, name: SplitName) -> TokenSplit:
        """The training or the held-out split."""
        return self._splits[name]

    def tokenizer(self) -> str:
        """The `tokenizer.json` that the tokens were made with; raises StoreDamaged, StoreMissing."""
        data = self._folder.read(TOKENIZER_FILE)
        if tokenizer_hash(data) != self.manifest.tokenizer:
            raise DamagedFileError(f"{self._folder}/{TOKENIZER_FILE}", "checksum does not hold")
        return data.decode()

    def verify(self, *, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
        """Recompute every checksum; what does not hold."""
        found = []
        try:
            self.tokenizer()
        except StoreMissing:
            found.append(Damage(TOKENIZER_FILE, None, "no such file"))
        except DamagedFileError as error:
            found.append(Damage(TOKENIZER_FILE, None, error.what))
        for split in self._splits.values():
            found += split.verify(workers=workers, progress=progress)
        return found
