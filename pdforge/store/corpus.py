"""The text of a corpus, document by document in a fixed order, and the hash that stands for it in identities."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zstandard

from pdforge.errors import EnvironmentFault, StoreError
from pdforge.identity import canonical
from pdforge.recipe.models import Corpus, StandardLibraryCorpus, TextCorpus
from pdforge.store.files import filesystem_of

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3"}
"""Of the standard library: installed packages, and tests with their deliberately odd files."""
_SKIPPED_PREFIXES = ("_sysconfigdata", "config-")
"""Written when Python is built: they differ from machine to machine."""

_READ_ERRORS = (OSError, EOFError, zlib.error, zstandard.ZstdError)
"""What reading a file raises that is gone, cut short or not compressed as its name says."""


def documents(corpora: Sequence[Corpus]) -> Iterator[str]:
    """Every document that is not blank, in an order that depends on the corpora alone.

    Raises:
        EnvironmentFault: a file is missing or cannot be read, or a pattern matches none.
        StoreError: a file's content is not what its kind says; names file and line.
    """
    for corpus in corpora:
        for text in _documents(corpus):
            if text.strip():
                yield _without_lone_surrogates(text)


def fingerprint(corpora: Sequence[Corpus]) -> str:
    """Hash of what `documents` yields, hex: names and contents of local files; names, sizes and tags of remote ones.

    Raises:
        EnvironmentFault: as `documents`.
    """
    return hashlib.sha256(canonical([_signature(corpus) for corpus in corpora]).encode()).hexdigest()


def _documents(corpus: Corpus) -> Iterator[str]:
    if isinstance(corpus, StandardLibraryCorpus):
        for _, data in _standard_library(corpus.bytes):
            yield data.decode()
    else:
        filesystem, paths = _matches(corpus.path)
        for path in paths:
            yield from (
                _text(filesystem, path) if isinstance(corpus, TextCorpus) else _rows(filesystem, path, corpus.text)
            )


def _signature(corpus: Corpus) -> list[Any]:
    options = corpus.model_dump(mode="json", exclude={"path"})
    if isinstance(corpus, StandardLibraryCorpus):
        return [options, [[name, hashlib.sha256(data).hexdigest()] for name, data in _standard_library(corpus.bytes)]]
    filesystem, paths = _matches(corpus.path)
    if "file" in _protocols(filesystem):
        folder = Path(paths[0]).parent
        while not all(Path(path).is_relative_to(folder) for path in paths):
            folder = folder.parent
        return [options, [[Path(path).relative_to(folder).as_posix(), _sha256(path)] for path in paths]]
    tags = ("size", "ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    return [
        options,
        [[path, {tag: str(info[tag]) for tag in tags if tag in info}] for path, info in _infos(filesystem, paths)],
    ]


def _infos(filesystem: Any, paths: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in paths:
        yield path, filesystem.info(path)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _sha256(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _standard_library(size: int) -> Iterator[tuple[str, bytes]]:
    """Sources of the running Python as (path, content), in the order of the paths' hashes, until `size` bytes."""
    folder = Path(sysconfig.get_path("stdlib"))
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in _SKIPPED_FOLDERS and not f.startswith(_SKIPPED_PREFIXES)]
        names += [
            (Path(parent) / f).relative_to(folder)
            for f in files
            if f.endswith(".py") and not f.startswith(_SKIPPED_PREFIXES)
        ]
    if not names:
        raise EnvironmentFault(f"{folder}: this Python has no standard library sources", remedy="use another corpus")
    for name in sorted(names, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest()):
        data = (folder / name).read_bytes()
        if _is_utf8(data):
            yield name.as_posix(), data
            size -= len(data)
            if size <= 0:
                return


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _matches(pattern: str) -> tuple[Any, list[str]]:
    """The file system of a pattern and the files it matches, sorted."""
    filesystem, path = filesystem_of(pattern)
    try:
        found = sorted(name for name in map(str, filesystem.glob(path)) if not filesystem.isdir(name))
    except OSError as error:
        raise _unreadable(pattern, error) from error
    if not found:
        raise EnvironmentFault(f"{pattern}: no such file", remedy="check the corpus's `path`")
    return filesystem, found


def _text(filesystem: Any, path: str) -> Iterator[str]:
    with _opened(filesystem, path) as file:
        try:
            data = file.read()
        except _READ_ERRORS as error:
            raise _unreadable(path, error) from error
    try:
        yield data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StoreError(f"{path}:{line}: not UTF-8: byte 0x{data[error.start]:02x}") from error


def _rows(filesystem: Any, path: str, key: str) -> Iterator[str]:
    with _opened(filesystem, path) as file:
        lines = enumerate(file, start=1)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except _READ_ERRORS as error:
                raise _unreadable(path, error) from error
            if line.strip():
                yield _value(line, key, f"{path}:{number}")


def _value(line: bytes, key: str, place: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{place}: not JSON: {error}", remedy="a JSON Lines file has one object a line") from error
    if not isinstance(row, dict):
        raise StoreError(f"{place}: not a JSON object", remedy="a JSON Lines file has one object a line")
    if key not in row:
        raise StoreError(f"{place}: no key {key!r}", remedy=f"set the corpus's `text`; keys here: {', '.join(row)}")
    if not isinstance(row[key], str):
        raise StoreError(
            f"{place}: {key!r} is not text", remedy=f"set the corpus's `text`; keys here: {', '.join(row)}"
        )
    return str(row[key])


def _opened(filesystem: Any, path: str) -> Any:
    try:
        if path.endswith(".zst"):
            return io.BufferedReader(_ZstdFrames(filesystem.open(path, "rb")))
        return filesystem.open(path, "rb", compression="infer")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: BaseException) -> EnvironmentFault:
    return EnvironmentFault(f"{path}: cannot be read: {error}", remedy="check the corpus's `path` and its rights")


def _without_lone_surrogates(text: str) -> str:
    """JSON can spell half of a surrogate pair, which no encoder accepts: it becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class _ZstdFrames(io.RawIOBase):
    """A zstd file of any number of frames. Readers at hand stop after the first, or at a cut, without a word."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._frame: Any = None
        self._compressed = self._plain = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            data = self._compressed or self._file.read(1 << 16)
            if not data:
                if self._frame is not None:
                    raise EOFError("cut short inside a zstd frame")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._plain, self._compressed = self._frame.decompress(data), b""
            if self._frame.eof:
                self._compressed, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._plain))
        buffer[:size], self._plain = self._plain[:size], self._plain[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
