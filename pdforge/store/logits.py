"""The logit store: a teacher's truncated next-token distributions, keyed by sample index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdforge.errors import StoreMismatch, StoreMissing
from pdforge.store import codec as planes
from pdforge.store.codec import CODECS, CorruptBlockError, Decoded, LogitBlock
from pdforge.store.files import DamagedFileError, Folder
from pdforge.store.manifest import read_manifest
from pdforge.store.ranks import Ranks
from pdforge.store.shardset import Damage, ShardSet
from pdforge.store.spec import KIND, RANKS_FILE, LogitSpec, Manifest, read_spec, shard_name
from pdforge.store.writer import LogitWriter, describe_missing

Entries = tuple[NDArray[Any], ...]
"""ids, logprobs (falling; padded with id 0, -inf), mass; then the columns asked for."""


class LogitStore:
    """A whole logit store, local or behind any fsspec URL. Open it with `LogitStore.open`; it may be pickled."""

    def __init__(self, folder: Folder, manifest: Manifest, ranks: Ranks) -> None:
        self.manifest = manifest
        self._folder = folder
        self._ranks = ranks
        self._codec = CODECS[manifest.codec]
        self._shards = ShardSet(folder, manifest.shard_files)

    @classmethod
    def open(cls, path: str | Path, *, expect: Mapping[str, object] | None = None) -> LogitStore:
        """The store at `path`, if it holds what is expected.

        `expect` maps fields of the manifest to the values that a run needs; `top_p`, `top_k` and `sequences` may be
        larger in the store, which then serves the smaller ones.

        Raises:
            StoreMissing: no store there, or an unfinished one; says which shards are missing.
            StoreMismatch: a field differs (named), or another kind of store, or a later version.
            StoreDamaged: not what was written.
        """
        folder = Folder(path)
        try:
            manifest = read_manifest(folder, KIND, Manifest)
        except StoreMissing:
            spec, _, _ = read_spec(folder)
            there = folder.names()
            missing = [index for index in range(spec.shards) if shard_name(index) not in there]
            what = describe_missing(missing, spec.shards) if missing else "all shards are written, the manifest is not"
            raise StoreMissing(
                f"{folder}: unfinished logit store: {what}", remedy="start its capture stage again; it goes on there"
            ) from None
        for name, wanted in (expect or {}).items():
            held: Any = getattr(manifest, name, None)
            may_be_larger = held is not None and name in ("top_p", "top_k", "sequences")
            if held != wanted and not (may_be_larger and held > wanted):
                raise StoreMismatch(
                    f"{folder}: {name} is {held!r}, this run needs {wanted!r}",
                    remedy="delete the store, with its stage, and capture the teacher again for this recipe, or name "
                    "the store that fits it",
                )
        try:
            _, ranks, digest = read_spec(folder)
        except StoreMissing:
            raise DamagedFileError(f"{folder}/{RANKS_FILE}", "no such file") from None
        if digest != manifest.ranks:
            raise DamagedFileError(f"{folder}/{RANKS_FILE}", "another rank table than the manifest lists")
        return cls(folder, manifest, ranks)

    def __reduce__(self) -> tuple[Any, ...]:
        return LogitStore.open, (self._folder.url,)

    def __len__(self) -> int:
        return self.manifest.sequences

    def get(
        self,
        sample: int,
        top_p: float | None = None,
        top_k: int | None = None,
        *,
        ordered: bool = True,
        columns: Sequence[str] = (),
    ) -> Entries:
        """Distributions of sample `sample`: ids int32 [L, K], logprobs float32 [L, K], mass float32 [L]; and each of
        `columns`, float32 [L].

        Log-probabilities are natural, of the full softmax at τ=1, in falling order, padded with -inf (id 0). K is
        `top_k`, by default the store's. A smaller `top_p` or `top_k` cuts the stored distributions by the rule of
        capture (crossing token kept, ties to the lower id). Rows that are not cut may come in any order where
        `ordered` is false: nearly half the time saved, for a reader that sums over them.

        Raises:
            StoreMissing: no such sample, or its shard is gone.
            StoreMismatch: the store was cut closer than asked, or has no such column.
            StoreDamaged: names file and block.
        """
        return tuple(part[0] for part in self.get_batch([sample], top_p, top_k, ordered=ordered, columns=columns))

    def get_batch(
        self,
        samples: Sequence[int] | NDArray[np.integer[Any]],
        top_p: float | None = None,
        top_k: int | None = None,
        *,
        ordered: bool = True,
        columns: Sequence[str] = (),
    ) -> Entries:
        """`get` for B samples, stacked: [B, L, K], [B, L, K], [B, L], and [B, L] for each of `columns`."""
        p, k = self._truncation(top_p, top_k)
        for name in columns:
            if name not in self.manifest.columns:
                held = ", ".join(self.manifest.columns) or "none"
                raise StoreMismatch(
                    f"{self._folder}: no column {name!r}; columns: {held}",
                    remedy="capture the teacher again with this column (teacher.logits.columns)",
                )
        shape = (len(samples), self.manifest.sequence_length)
        ids = np.empty((*shape, k), np.int32)
        logprobs = np.empty((*shape, k), np.float32)
        mass = np.empty(shape, np.float32)
        extra = [np.empty(shape, np.float32) for _ in columns]
        for row, sample in enumerate(samples):
            decoded = self._decode(int(sample))
            if p is not None or k < self.manifest.top_k:
                ids[row], logprobs[row], mass[row] = _cut(planes.ordered(decoded), p, k)
            else:
                # Of a lossless store a cut row and one that was captured so are the same bits, order included.
                whole = planes.ordered(decoded) if ordered or self._codec.name == "lossless" else decoded
                ids[row], logprobs[row], mass[row] = whole.ids, whole.logprobs, whole.mass
            for column, name in zip(extra, columns, strict=True):
                column[row] = decoded.columns[name]
        return ids, logprobs, mass, *extra

    def verify(self, *, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
        """Recompute every checksum of every shard, and decode each shard's first sequence; what does not hold."""

        return self._shards.verify(self._parse, workers=workers, progress=progress)

    def _truncation(self, top_p: float | None, top_k: int | None) -> tuple[float | None, int]:
        """What to cut to; None for top-p where the stored cut stays."""
        held = self.manifest
        if self._codec.values == "draws" and (top_p not in (None, held.top_p) or (top_k or held.top_k) < held.top_k):
            raise StoreMismatch(
                f"{self._folder}: sampled targets cannot be cut: what is left would no longer be a fair sample",
                remedy=f"read it with top_p {held.top_p} and top_k {held.top_k}",
            )
        if (top_p or 0) > held.top_p or (top_k or 0) > held.top_k:
            raise StoreMismatch(
                f"{self._folder}: truncated to top-p {held.top_p}, top-k {held.top_k}; asked for top-p {top_p}, "
                f"top-k {top_k}",
                remedy="capture the teacher again with the larger truncation",
            )
        return (None if top_p in (None, held.top_p) else top_p), top_k or held.top_k

    def _decode(self, sample: int) -> Decoded:
        place = sample - self.manifest.start
        if not 0 <= place < len(self):
            first = self.manifest.start
            raise StoreMissing(f"{self._folder}: no sample {sample}; it holds {first} to {first + len(self) - 1}")
        shard, block = divmod(place, self.manifest.shard_sequences)
        reader = self._shards.reader(shard)
        try:
            return self._parse(reader.block(block))
        except CorruptBlockError as error:
            raise DamagedFileError(reader.name, str(error), block) from error

    def _parse(self, data: bytes | memoryview) -> Decoded:
        held = self.manifest
        return planes.decode(
            self._codec, self._ranks, data, length=held.sequence_length, width=held.top_k, columns=held.columns
        )


def _cut(decoded: Decoded, top_p: float | None, top_k: int) -> Entries:
    """Top-p, then top-k, of rows in falling probability. A row that loses nothing keeps its stored mass."""
    ids, logprobs, mass = decoded.ids, decoded.logprobs, decoded.mass
    probability = np.exp(logprobs, dtype=np.float64)
    keep = np.arange(logprobs.shape[1]) < top_k
    if top_p is not None:
        keep = keep & (np.cumsum(probability, axis=1) - probability < top_p)
    cut = ((probability > 0) & ~keep).any(axis=1)
    kept_mass = np.where(cut, np.where(keep, probability, 0).sum(axis=1), mass).astype(np.float32)
    kept_logprobs = np.where(keep, logprobs, np.float32(-np.inf))[:, :top_k]
    return np.where(keep, ids, 0)[:, :top_k], kept_logprobs, kept_mass


__all__ = ["Damage", "LogitBlock", "LogitSpec", "LogitStore", "LogitWriter", "Manifest"]
