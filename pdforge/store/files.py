"""Files of a store, in a local folder or behind an fsspec URL: read at random, published by one atomic step."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from pdforge.errors import StoreDamaged, StoreError, StoreMissing
from pdforge.store.filesystem import filesystem_of
from pdforge.store.remote import MappedFile, RemotePlace, open_remote


class Bytes(Protocol):
    """Random access to one file."""

    name: str
    size: int

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """The bytes [start, stop)."""
        ...


SET_ASIDE = ".damaged"
"""Ending of what was taken out of a store."""

Place = Path | RemotePlace
"""Where one file of a store is, or will be."""


class Folder:
    """The directory of a store: local (read by mmap) or any fsspec URL (read by ranges)."""

    def __init__(self, path: str | Path) -> None:
        self.url = str(path).rstrip("/")
        remote = isinstance(path, str) and "://" in path and not path.startswith("file://")
        if remote:
            self.local: Path | None = None
            # Several processes write a store: a listing must be what is there now.
            self._filesystem, self._path = filesystem_of(self.url, use_listings_cache=False)
        else:
            self.local = Path(self.url.removeprefix("file://")).absolute()

    def __str__(self) -> str:
        return self.url

    def place(self, name: str) -> Place:
        """Where a file of that name is, or will be."""
        if self.local:
            return self.local / name
        return RemotePlace(self._filesystem, f"{self._path}/{name}", f"{self.url}/{name}")

    def file(self, name: str) -> Bytes:
        """A file of the folder, for random access.

        Raises:
            StoreMissing: there is none.
            StoreError: it cannot be read.
        """
        place = self.place(name)
        if isinstance(place, RemotePlace):
            return open_remote(place)
        try:
            return MappedFile(place)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreMissing(f"{place}: no such file") from error
        except OSError as error:
            raise StoreError(f"{place}: cannot be read: {error}") from error

    def read(self, name: str) -> bytes:
        """The whole content of a file; raises as `file` does."""
        file = self.file(name)
        return bytes(file.read(0, file.size))

    def names(self) -> set[str]:
        """Names of the files there; none where there is no such folder."""
        try:
            if self.local:
                return {entry.name for entry in os.scandir(self.local)}
            here = RemotePlace(self._filesystem, self._path, self.url)
            return {
                str(path).rsplit("/", 1)[-1]
                for path in here.tried(lambda: self._filesystem.ls(self._path, detail=False))
            }
        except (FileNotFoundError, NotADirectoryError, StoreMissing):
            return set()
        except OSError as error:
            raise StoreError(f"{self.url}: cannot be listed: {error}") from error


def publish(path: Place, parts: Iterable[bytes | memoryview], *, first_wins: bool = False) -> None:
    """Write `parts` under a temporary name, make them durable, and give them their name in one step.

    Object stores have no rename and need none: there one PUT is that step.

    With `first_wins`, a file that already has the name stays as it is.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    if isinstance(path, RemotePlace):
        path.publish(parts, first_wins=first_wins)
        return
    try:
        _publish(path, parts, first_wins=first_wins)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}", remedy="check free space and rights there"
        ) from error


def _publish(path: Path, parts: Iterable[bytes | memoryview], *, first_wins: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # mkstemp gives 0600; stores are shared
            os.fsync(file.fileno())
        if first_wins:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        else:
            Path(temporary).replace(path)
        _sync(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def publish_folder(partial: Path, final: Path) -> None:
    """Make all that a folder holds durable, and give it its name in one step; what has the name goes.

    Raises:
        OSError: the disk is full, or a folder cannot be written.
    """
    for path in (*partial.rglob("*"), partial):
        _sync(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(final.parent)


def remove_leftovers(folder: Path | None, *, untouched_s: float = 0.0) -> None:
    """Delete what killed writers left under temporary names; of those that nobody wrote to for so many seconds.

    With 0 only for a caller that knows it is the only writer. A remote folder (None) has no temporary names.
    """
    for path in [] if folder is None else folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= untouched_s:
                path.unlink()


def _sync(path: Path) -> None:
    """Make the content of a file durable, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DamagedFileError(StoreDamaged):
    """A file that does not hold what was written: names it, and the block where it is one block's fault."""

    def __init__(self, name: str, what: str, block: int | None = None) -> None:
        self.file, self.what, self.block = Path(name).name, what, block
        place = name if block is None else f"{name}, block {block}"
        super().__init__(
            f"{place}: {what}",
            remedy="`pdforge store verify --set-aside` takes damaged shards out; their stage then writes them again",
        )
