"""The shards of a whole store: opened when needed, compared with the manifest, and checked on demand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pdforge.errors import StoreError, StoreMissing
from pdforge.store.files import DamagedFileError, Folder
from pdforge.store.manifest import Shard
from pdforge.store.shards import ShardReader

_OPEN_SHARDS = 64
"""Shards kept open: each holds a descriptor and its index."""


@dataclass(frozen=True)
class Damage:
    """One finding of `verify`: the file, the block where it is one block's, and what does not hold."""

    file: str
    block: int | None
    what: str


class ShardSet:
    """Shards by number, as the manifest lists them."""

    def __init__(self, folder: Folder, shards: Sequence[Shard]) -> None:
        self.folder = folder
        self.shards = shards
        self.reader = functools.lru_cache(maxsize=_OPEN_SHARDS)(self._open)

    def _open(self, number: int) -> ShardReader:
        """Shard `number`; raises StoreMissing, StoreDamaged."""
        shard = self.shards[number]
        try:
            reader = ShardReader(self.folder.file(shard.file))
        except StoreMissing as error:
            error.remedy = "put the file back, or let the stage write it again (`pdforge store verify --set-aside`)"
            raise
        if reader.digest != shard.xxh3 or reader.file.size != shard.bytes or len(reader) != shard.blocks:
            raise DamagedFileError(reader.name, "another file than the manifest lists")
        return reader

    def verify(
        self,
        check: Callable[[bytes | memoryview], object],
        *,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Damage]:
        """Read every byte and recompute every checksum; `check` the structure of each shard's first block.

        `check` raises ValueError for what no encoder wrote. `progress` is called with (shards done, shards).
        """
        found: list[Damage] = []
        with ThreadPoolExecutor(workers) as pool:
            results = pool.map(lambda number: list(self._verify_shard(number, check)), range(len(self.shards)))
            for done, damage in enumerate(results, start=1):
                found += damage
                if progress:
                    progress(done, len(self.shards))
        return found

    def _verify_shard(self, number: int, check: Callable[[bytes | memoryview], object]) -> Iterator[Damage]:
        name = self.shards[number].file
        try:
            reader = self._open(number)
        except StoreError as error:
            yield Damage(name, None, error.what if isinstance(error, DamagedFileError) else error.message)
            return
        for block in range(len(reader)):
            try:
                data = reader.block(block)
                if block == 0:
                    check(data)
            except DamagedFileError as error:
                yield Damage(name, block, error.what)
            except ValueError as error:
                yield Damage(name, block, str(error))
