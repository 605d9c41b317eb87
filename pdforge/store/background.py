"""Shards on their way to the disk, so that the teacher need not wait for encoding and fsync."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from pdforge.store.codec import LogitBlock
from pdforge.store.writer import LogitWriter

_WAITING = 2
"""Shards held in memory besides the one that is computed: one that is written, one that waits."""


class BackgroundWriter:
    """Writes shards in one thread, in the order they come in. A context: leaving it waits until all are published.

    An error of the thread is raised by one of the next `write_shard`, or on leaving; shards that wait are dropped then.
    """

    def __init__(self, writer: LogitWriter) -> None:
        self._writer = writer
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def write_shard(self, index: int, blocks: Sequence[LogitBlock]) -> None:
        """Hand shard `index` over; waits only while too many others do. Raises as `LogitWriter.write_shard`."""
        self._settle(_WAITING - 1)
        self._pending.append(self._pool.submit(self._writer.write_shard, index, blocks))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._settle(0)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _settle(self, at_most: int) -> None:
        """Collect what is done, and wait until no more than so many are on their way."""
        while self._pending and (len(self._pending) > at_most or self._pending[0].done()):
            try:
                self._pending.popleft().result()
            except BaseException:
                self._pool.shutdown(wait=False, cancel_futures=True)
                raise
