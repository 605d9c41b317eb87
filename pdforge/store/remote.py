"""Files of a store behind an fsspec URL: ranges with read-ahead, single-step publishing, and a cache on local disk.

Every call is tried again when a connection drops. Objects appear whole: an object store shows what one PUT (or one
completed upload) has sent, or nothing, so there is no temporary name and no rename.
"""

import contextlib
import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pdforge.errors import StoreError, StoreMissing

CACHE_VARIABLE = "PDFORGE_STORE_CACHE"
"""Environment variable: a local folder where remote files are kept whole; unset: ranges are read each time."""
CACHE_SIZE_VARIABLE = "PDFORGE_STORE_CACHE_BYTES"
"""Environment variable: what that folder may hold, in bytes; the files used longest ago go first."""
DEFAULT_CACHE_BYTES = 100 * 10**9

READ_AHEAD = 1 << 22
"""Bytes of a range that is fetched, and of the next one that is fetched meanwhile, when a file is read in order."""
_PAUSES_S = (0.1, 0.5, 2.0)
"""Before a call is tried for the second, third, fourth time."""
_TEMPORARY, _FETCHED_S = ".tmp", 600.0
"""Ending of a file on its way into the cache, and how long after the last byte it is taken to be so."""
_IDENTIFYING = ("size", "ETag", "etag", "md5Hash", "mtime", "LastModified", "created")

T = TypeVar("T")


class RemotePlace(NamedTuple):
    """One name in a remote folder."""

    filesystem: Any
    path: str
    url: str
    """What messages call it."""

    def exists(self) -> bool:
        """Whether the file is there."""
        return bool(self.tried(lambda: self.filesystem.exists(self.path)))

    def info(self) -> dict[str, Any]:
        """What the file system says of it; raises StoreMissing, StoreError."""
        return dict(self.tried(lambda: self.filesystem.info(self.path)))

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop); raises StoreMissing, StoreError."""

        def whole() -> bytes:
            data = bytes(self.filesystem.cat_file(self.path, start=start, end=stop)) if stop > start else b""
            if len(data) != stop - start:
                raise ConnectionError(f"{len(data)} of {stop - start} bytes arrived")
            return data

        return self.tried(whole)

    def publish(self, parts: Iterable[bytes | memoryview], *, first_wins: bool) -> None:
        """Write the whole file in one step; raises StoreError. With `first_wins` what is there stays."""
        data = b"".join(parts)
        if first_wins:
            with contextlib.suppress(FileExistsError):
                self.tried(lambda: self.filesystem.pipe_file(self.path, data, mode="create"))
        else:
            self.tried(lambda: self.filesystem.pipe_file(self.path, data))

    def tried(self, call: Callable[[], T]) -> T:
        """The result of a call, tried again where it may help.

        Raises:
            StoreMissing: no such file.
            StoreError: the last try failed too, or no try can help.
            FileExistsError: as it is.
        """
        for pause in (*_PAUSES_S, None):
            try:
                return call()
            except FileExistsError:
                raise
            except FileNotFoundError as error:
                raise StoreMissing(f"{self.url}: no such file") from error
            except Exception as error:  # each protocol's library raises classes of its own for a lost connection
                if pause is None or isinstance(error, PermissionError):
                    raise StoreError(
                        f"{self.url}: cannot be reached: {error}", remedy="check the network, the URL and its rights"
                    ) from error
                time.sleep(pause)
        raise AssertionError


class RemoteFile:
    """A remote file, read by ranges: one request a range, or ahead of a reader that goes through it in order."""

    def __init__(self, place: RemotePlace) -> None:
        self.name, self._place = place.url, place
        self.size = int(place.info()["size"])
        self._next = 0
        self._ahead: Any = None

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop)."""
        in_order, self._next = start == self._next and start > 0, stop
        if not in_order or stop - start > READ_AHEAD:
            return self._place.read(start, stop)
        if self._ahead is None:
            from fsspec.caching import BackgroundBlockCache  # noqa: PLC0415 - commands that read nothing need not pay

            self._ahead = BackgroundBlockCache(READ_AHEAD, self._fetch, self.size, maxblocks=4)
        return bytes(self._ahead._fetch(start, stop))

    def _fetch(self, start: int, stop: int) -> bytes:
        return self._place.read(start, min(stop, self.size))


class MappedFile:
    """A local file, mapped into memory."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.name = name or str(path)
        with path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self._view = (
                memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if self.size else memoryview(b"")
            )

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes [start, stop)."""
        return self._view[start:stop]


def open_remote(place: RemotePlace) -> RemoteFile | MappedFile:
    """A remote file, from the local cache where there is one; raises StoreMissing, StoreError."""
    folder = os.environ.get(CACHE_VARIABLE)
    if not folder:
        return RemoteFile(place)
    try:
        return _cached(place, Path(folder), int(os.environ.get(CACHE_SIZE_VARIABLE) or DEFAULT_CACHE_BYTES))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{place.url}: cannot be kept in the cache {folder}: {error}",
            remedy=f"check ${CACHE_VARIABLE} and ${CACHE_SIZE_VARIABLE}, or unset them",
        ) from error


def _cached(place: RemotePlace, folder: Path, limit: int) -> RemoteFile | MappedFile:
    info = place.info()
    size = int(info["size"])
    if size > limit:
        return RemoteFile(place)
    # Another version of the file has another name here: nothing stale is ever read.
    version = [place.url, *(str(info.get(tag)) for tag in _IDENTIFYING)]
    path = folder / hashlib.sha256("\0".join(version).encode()).hexdigest()
    try:
        file = MappedFile(path, place.url)
        if file.size == size:
            os.utime(path)
            return file
    except FileNotFoundError:
        pass
    folder.mkdir(parents=True, exist_ok=True)
    _make_room(folder, limit - size)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=_TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as output:
            for start in range(0, size, READ_AHEAD):
                output.write(place.read(start, min(start + READ_AHEAD, size)))
            output.flush()
            os.fsync(output.fileno())  # else the name may outlive a crash, and the content not
        file = MappedFile(Path(temporary), place.url)  # opened before another process may evict it
        Path(temporary).replace(path)
        return file
    finally:
        Path(temporary).unlink(missing_ok=True)


def _make_room(folder: Path, limit: int) -> None:
    """Delete the files used longest ago until the rest takes at most `limit` bytes; who has one open keeps it.

    What another process is fetching stays.
    """
    found, now = [], time.time()
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process makes room too
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_size, path))
    total = sum(size for _, size, _ in found)
    for used, size, path in sorted(found):
        if total <= limit:
            return
        if path.suffix == _TEMPORARY and now - used / 1e9 < _FETCHED_S:
            continue
        path.unlink(missing_ok=True)
        total -= size
