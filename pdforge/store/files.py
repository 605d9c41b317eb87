"""Files of a store: read from a local folder or through fsspec, published locally by one atomic step."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from pdforge.errors import EnvironmentFault, StoreDamaged, StoreError, StoreMissing


class Bytes(Protocol):
    """Random access to one file."""

    name: str
    size: int

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """The bytes [start, stop)."""
        ...


class _Mapped:
    """A local file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self._view = (
                memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if self.size else memoryview(b"")
            )

    def read(self, start: int, stop: int) -> memoryview:
        return self._view[start:stop]


class _Ranged:
    """A remote file, read by ranges."""

    def __init__(self, filesystem: Any, path: str, name: str) -> None:
        self.name = name
        self._filesystem, self._path = filesystem, path
        self.size = int(filesystem.info(path)["size"])

    def read(self, start: int, stop: int) -> bytes:
        try:
            return bytes(self._filesystem.cat_file(self._path, start=start, end=stop))
        except OSError as error:
            raise StoreError(f"{self.name}: cannot be read: {error}") from error


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path within it.

    Raises:
        EnvironmentFault: the package that speaks this protocol is not installed, or there is no such protocol.
    """
    import fsspec  # noqa: PLC0415 - commands that read nothing must not pay for it

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise EnvironmentFault(
            f"{url}: {error}", remedy="install the fsspec package that speaks this protocol"
        ) from error
    return filesystem, str(path)


class Folder:
    """The directory of a store: local (read by mmap) or any fsspec URL (read by ranges)."""

    def __init__(self, path: str | Path) -> None:
        self.url = str(path).rstrip("/")
        remote = isinstance(path, str) and "://" in path and not path.startswith("file://")
        if remote:
            self.local: Path | None = None
            self._filesystem, self._path = filesystem_of(self.url)
        else:
            self.local = Path(self.url.removeprefix("file://")).absolute()

    def __str__(self) -> str:
        return self.url

    def file(self, name: str) -> Bytes:
        """A file of the folder, for random access.

        Raises:
            StoreMissing: there is none.
            StoreError: it cannot be read.
        """
        place = f"{self.url}/{name}"
        try:
            return (
                _Mapped(self.local / name) if self.local else _Ranged(self._filesystem, f"{self._path}/{name}", place)
            )
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
            return {str(path).rsplit("/", 1)[-1] for path in self._filesystem.ls(self._path, detail=False)}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError as error:
            raise StoreError(f"{self.url}: cannot be listed: {error}") from error


def publish(path: Path, parts: Iterable[bytes | memoryview], *, first_wins: bool = False) -> None:
    """Write `parts` under a temporary name, make them durable, and give them their name in one step.

    With `first_wins`, a file that already has the name stays as it is.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
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
        _sync_directory(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left under temporary names. Only for a caller that knows it is the only writer."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    """Make a rename durable."""
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
