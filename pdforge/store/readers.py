"""Texts out of one file, or one piece of a data set, of a corpus: JSON Lines, plain text, Parquet, Hugging Face."""

from __future__ import annotations

import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

from pdforge.errors import EnvironmentFault, StoreError
from pdforge.recipe.models import HuggingFaceCorpus
from pdforge.store.corpus_files import unreadable

_READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What reading a file raises that is gone, cut short or not compressed as its name says."""

_PARQUET_ROWS = 1024
"""Rows that are decoded at once."""

Document = Callable[[Any, str, str, list[str]], str]
"""Makes a document of a row's value, whose key, place and neighbouring keys are for the message of a StoreError."""


def text(value: Any, key: str, place: str, keys: list[str]) -> str:
    """The value as it is; raises StoreError (not text)."""
    if not isinstance(value, str):
        raise StoreError(f"{place}: {key!r} is not text", remedy=_set_text(keys))
    return value


def plain_text(filesystem: Any, path: str) -> Iterator[str]:
    """The whole file as one document; raises EnvironmentFault (unreadable), StoreError (not UTF-8)."""
    with _opened(filesystem, path) as file:
        try:
            data = file.read()
        except _READ_ERRORS as error:
            raise unreadable(path, error) from error
    try:
        yield data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StoreError(f"{path}:{line}: not UTF-8: byte 0x{data[error.start]:02x}") from error


def json_lines(filesystem: Any, path: str, key: str, document: Document = text) -> Iterator[str]:
    """`key` of every row; raises EnvironmentFault (unreadable), StoreError (not such rows: names the line)."""
    with _opened(filesystem, path) as file:
        lines = enumerate(file, start=1)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except _READ_ERRORS as error:
                raise unreadable(path, error) from error
            if line.strip():
                yield _of_line(line, key, f"{path}:{number}", document)


def parquet(filesystem: Any, path: str, key: str, document: Document = text) -> Iterator[str]:
    """Column `key` of every row, a row group's pages at a time.

    Raises:
        EnvironmentFault: unreadable, or `pyarrow` is not installed.
        StoreError: not Parquet, or no such column of text; names the row.
    """
    try:
        import pyarrow  # noqa: PLC0415 - only corpora of this kind need it
        import pyarrow.parquet  # noqa: PLC0415 - as above
    except ImportError as error:
        raise EnvironmentFault("the `pyarrow` package is missing", remedy="pip install 'pdforge[data]'") from error
    try:
        with filesystem.open(path, "rb") as file:
            table = pyarrow.parquet.ParquetFile(file)
            names = table.schema_arrow.names
            if key not in names:
                raise StoreError(f"{path}: no column {key!r}", remedy=_set_text(names))
            number = 0
            for batch in table.iter_batches(_PARQUET_ROWS, columns=[key]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield document(value, key, f"{path}, row {number}", names)
    except pyarrow.ArrowInvalid as error:
        raise StoreError(f"{path}: not Parquet: {error}", remedy="check the corpus's `kind` and `path`") from error
    except OSError as error:  # a damaged page too
        raise unreadable(path, error) from error


def dataset(corpus: HuggingFaceCorpus, document: Document = text) -> list[Callable[[], Iterator[str]]]:
    """A data set of the hub, or of a local folder, in the pieces that it is stored in; streamed.

    Raises:
        EnvironmentFault: it cannot be reached, or `datasets` is not installed.
        StoreError, while a piece is read: no such column of text; names the row.
    """
    try:
        import datasets  # noqa: PLC0415 - only corpora of this kind need it
    except ImportError as error:
        raise EnvironmentFault("the `datasets` package is missing", remedy="pip install 'pdforge[data]'") from error
    options = corpus.model_dump(include={"path", "name", "split", "revision"})
    try:
        found = datasets.load_dataset(**options, streaming=True)
        pieces = found.num_shards
    except Exception as error:  # the library raises whatever its loaders meet
        raise unreadable(corpus.path, error) from error

    def piece(number: int) -> Iterator[str]:
        place = f"{corpus.path} ({corpus.split}), piece {number}"
        return _rows(iter(found.shard(pieces, number)), place, corpus.text, document)

    return [partial(piece, number) for number in range(pieces)]


def _rows(rows: Iterator[dict[str, Any]], place: str, key: str, document: Document) -> Iterator[str]:
    for number in count(1):
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # as above
            raise unreadable(place, error) from error
        if key not in row:
            raise StoreError(f"{place}: no column {key!r}", remedy=_set_text(list(row)))
        yield document(row[key], key, f"{place}, row {number}", list(row))


def _of_line(line: bytes, key: str, place: str, document: Document) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{place}: not JSON: {error}", remedy="a JSON Lines file has one object a line") from error
    if not isinstance(row, dict):
        raise StoreError(f"{place}: not a JSON object", remedy="a JSON Lines file has one object a line")
    if key not in row:
        raise StoreError(f"{place}: no key {key!r}", remedy=_set_text(list(row)))
    return document(row[key], key, place, list(row))


def _set_text(keys: list[str]) -> str:
    return f"set the corpus's `text`, or `messages` of conversations; keys here: {', '.join(keys)}"


def _opened(filesystem: Any, path: str) -> Any:
    try:
        if path.endswith(".zst"):
            return io.BufferedReader(_ZstdFrames(filesystem.open(path, "rb")))
        return filesystem.open(path, "rb", compression="infer")
    except (*_READ_ERRORS, ValueError) as error:
        raise unreadable(path, error) from error


class _ZstdFrames(io.RawIOBase):
    """A zstd file of any number of frames. Readers at hand stop after the first, or at a cut, without a word."""

    def __init__(self, file: Any) -> None:
        import zstandard  # noqa: PLC0415 - a plan reads no documents, and is to be quick

        self._zstandard = zstandard
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
                self._frame = self._zstandard.ZstdDecompressor().decompressobj()
            try:
                self._plain, self._compressed = self._frame.decompress(data), b""
            except self._zstandard.ZstdError as error:
                raise OSError(str(error)) from error
            if self._frame.eof:
                self._compressed, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._plain))
        buffer[:size], self._plain = self._plain[:size], self._plain[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
