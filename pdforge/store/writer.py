"""Writing a logit store: any number of processes, each shard by one of them, resumable at any point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdforge.errors import StoreError, StoreMismatch, StoreMissing
from pdforge.store import codec as planes
from pdforge.store.codec import CODECS, LogitBlock
from pdforge.store.fidelity import measure, summed
from pdforge.store.files import SET_ASIDE, DamagedFileError, Folder, remove_leftovers
from pdforge.store.manifest import Shard, write_manifest
from pdforge.store.ranks import Ranks
from pdforge.store.shards import ShardReader, write_shard_file
from pdforge.store.spec import KIND, Fidelity, LogitSpec, Manifest, fix_spec, shard_name


class LogitWriter:
    """Writes the shards of one logit store.

    `learn` gives the rank tables, from how often ids are kept at a few thousand positions of the teacher; it is called
    only where the folder has none yet. Wrong tables cost nothing but size: with token frequencies instead, an entry
    takes 9 % more bits, with none (ids in rising order) 16 %. The first writer's tables hold; the others' are ignored,
    so writers need not agree.

    Raises:
        StoreMismatch: the folder belongs to a store with another spec; names the field.
    """

    def __init__(self, path: str | Path, spec: LogitSpec, learn: Callable[[], Ranks] | None = None) -> None:
        self.spec = spec
        self._folder = Folder(path)
        self._codec = CODECS[spec.codec]
        self._ranks, self._ranks_digest = fix_spec(self._folder, spec, learn)

    def missing_shards(self) -> list[int]:
        """Shards that no writer has published yet, rising."""
        there = self._folder.names()
        return [index for index in range(self.spec.shards) if shard_name(index) not in there]

    def write_shard(self, index: int, blocks: Sequence[LogitBlock]) -> None:
        """Publish shard `index`: sequences index·shard_sequences and following, in order.

        Raises:
            StoreError: the blocks are not this shard's, or break a rule of `LogitBlock`.
        """
        if not 0 <= index < self.spec.shards or len(blocks) != self.spec.shard_length(index):
            raise StoreError(f"shard {index} with {len(blocks)} sequences is none of this store's")
        for number, block in enumerate(blocks):
            _check(block, self.spec, f"shard {index}, sequence {number}")
        encoded = [planes.encode(self._codec, self._ranks, block, self.spec.columns) for block in blocks]
        shape = {"length": self.spec.sequence_length, "width": self.spec.top_k}
        decoded = planes.decode(self._codec, self._ranks, encoded[0], **shape, columns=self.spec.columns)
        fidelity = measure(blocks, self.spec.top_k, decoded)
        meta = {**self._marks(index), "fidelity": fidelity.model_dump(mode="json")}
        write_shard_file(self._folder.place(shard_name(index)), encoded, meta)

    def write_encoded(
        self, index: int, encoded: Sequence[bytes | memoryview], measured: Fidelity, meta: dict[str, Any]
    ) -> None:
        """Publish shard `index` of sequences that were encoded with this store's rank tables; `meta` goes along."""
        write_shard_file(
            self._folder.place(shard_name(index)),
            encoded,
            {**self._marks(index), "fidelity": measured.model_dump(mode="json"), **meta},
        )

    def _marks(self, index: int) -> dict[str, Any]:
        """What a shard carries, so that no other store's shard is taken for one of this."""
        return {"spec": self.spec.hash(), "ranks": self._ranks_digest, "shard": index}

    def finish(self, fidelity: dict[str, Any]) -> Manifest:
        """Publish the manifest. Called once, by one process, when no shard is missing.

        `fidelity` goes into the manifest's `capture` as it is.

        Raises:
            StoreMissing: shards are missing, or were damaged and are now: they are renamed; names them.
            StoreDamaged: one of a remote store is damaged.
            StoreMismatch: a shard is not this store's.
        """
        missing = self.missing_shards()
        if missing:
            raise StoreMissing(f"{self._folder}: {describe_missing(missing, self.spec.shards)}")
        files, parts, damaged = [], [], []
        for index in range(self.spec.shards):
            try:
                reader = ShardReader(self._folder.file(shard_name(index)))
            except DamagedFileError as error:
                damaged.append(error)
                continue
            marks = self._marks(index)
            if {name: reader.meta.get(name) for name in marks} != marks:
                raise StoreMismatch(f"{reader.name}: a shard of another store", remedy="delete it and capture again")
            parts.append(Fidelity.model_validate(reader.meta["fidelity"]))
            files.append(Shard(file=shard_name(index), blocks=len(reader), bytes=reader.file.size, xxh3=reader.digest))
        if damaged:
            raise self._set_aside(damaged)
        manifest = Manifest(
            **self.spec.model_dump(),
            ranks=self._ranks_digest,
            shard_files=tuple(files),
            fidelity=summed(parts),
            capture=fidelity,
        )
        remove_leftovers(self._folder.local)
        write_manifest(self._folder, KIND, manifest)
        return manifest

    def _set_aside(self, damaged: Sequence[DamagedFileError]) -> StoreError:
        """Take shards out, so that they are missing, and say so; of a remote store nothing can be renamed."""
        if self._folder.local is None:
            return damaged[0]
        for error in damaged:
            (self._folder.local / error.file).rename(self._folder.local / (error.file + SET_ASIDE))
        names = ", ".join(error.file for error in damaged[:8]) + (", …" if len(damaged) > 8 else "")
        return StoreMissing(
            f"{self._folder}: {len(damaged)} of {self.spec.shards} shards were damaged and are set aside: {names} "
            f"({damaged[0].what})",
            remedy="start the capture stage again: it writes them once more, and no others",
        )


def describe_missing(missing: Sequence[int], shards: int) -> str:
    """`3 of 40 shards are not written yet: 7, 8, 31`."""
    shown = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
    return f"{len(missing)} of {shards} shards are not written yet: {shown}"


def _check(block: LogitBlock, spec: LogitSpec, place: str) -> None:
    """Refuse what would not come back as it went in; raises StoreError."""

    def require(holds: Any, rule: str) -> None:
        if not holds:
            raise StoreError(f"{place}: {rule}", remedy="the teacher's output or its truncation is at fault")

    count, ids, logprobs, mass = block.count.astype(np.int64), block.ids, block.logprobs, block.mass
    require(count.shape == mass.shape == (spec.sequence_length,), f"needs {spec.sequence_length} positions")
    require(
        ((count >= 1) & (count <= min(spec.top_k, spec.vocabulary))).all(), f"keeps none, or more than {spec.top_k}"
    )
    require(len(ids) == len(logprobs) == count.sum(), "entries do not add up to the counts")
    require(((ids >= 0) & (ids < spec.vocabulary)).all(), "an id is outside the vocabulary")
    require(np.isfinite(logprobs).all() and (logprobs <= 1e-3).all(), "a log-probability is not finite or above 0")
    require(((mass > 0) & (mass <= 1 + 1e-3)).all(), "a kept mass is outside (0, 1]")
    position = np.repeat(np.arange(len(count)), count)
    same = position[1:] == position[:-1]
    require((logprobs[1:] <= logprobs[:-1])[same].all(), "entries are not in falling probability")
    key = np.sort((position << 24) | ids)
    require((key[1:] != key[:-1]).all(), "an id is kept twice at one position")
    if CODECS[spec.codec].values == "draws":
        draws = block.draws
        require(draws is not None and draws.shape == ids.shape, "sampled targets need the number of draws of each id")
        assert draws is not None
        require((draws >= 1).all(), "an id was never drawn")
        require((draws.astype(np.int64)[1:] <= draws[:-1])[same].all(), "entries are not in falling number of draws")
    for name in spec.columns:
        column = getattr(block, name)
        require(column is not None and column.shape == count.shape, f"column {name} is missing")
        require(not np.isnan(column).any(), f"column {name} is not a number somewhere")
