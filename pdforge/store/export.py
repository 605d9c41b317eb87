"""Stores as Parquet or Arrow files, for other tools: `datasets.load_dataset("parquet", data_files=…)` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pdforge.errors import EnvironmentFault, UsageError
from pdforge.store.logits import LogitStore
from pdforge.store.tokens import SplitName, TokenStore

Format = Literal["parquet", "arrow"]

_ROWS = 64
"""Samples that are in memory at once."""


def export(
    store: TokenStore | LogitStore,
    folder: Path,
    *,
    format: Format = "parquet",  # noqa: A002 - what users call it
    split: SplitName = "train",
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a store's samples below `folder`, one file a shard, and return the files.

    Columns of a token store: `sample` int64, `tokens` int32 [L+1], `positions` int32 [L]. Of a logit store: `sample`
    int64, `ids` int32 [L, kept], `logprobs` float32 [L, kept] (natural, full softmax at τ=1), `mass` float32 [L], and
    the store's own columns, float32 [L].

    Raises:
        EnvironmentFault: `pyarrow` is not installed, or the folder cannot be written.
        UsageError: the folder holds files already.
        StoreDamaged, StoreMissing: as the store's `get_batch`.
    """
    arrow = _library()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder", remedy="name a new one")
    batches: Callable[[range], Iterator[Any]]
    if isinstance(store, TokenStore):
        name, count, batches = split, len(store.split(split)), partial(_token_rows, arrow, store, split)
    else:
        name, count, batches = "train", len(store), partial(_logit_rows, arrow, store)
    per_file = store.manifest.shard_sequences
    files = []
    total = -(-count // per_file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(total):
            path = folder / f"{name}-{number:05d}-of-{total:05d}.{format}"
            wanted = range(number * per_file, min((number + 1) * per_file, count))
            _write(arrow, path, format, batches(wanted))
            files.append(path)
            if progress:
                progress(number + 1, total)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: cannot be written: {error}", remedy="check free space and rights") from error
    return files


def _write(arrow: Any, path: Path, format_: Format, batches: Iterator[Any]) -> None:
    """One file, whole under its name or not there."""
    temporary, writer = path.with_name(f".{path.name}.tmp"), None
    with temporary.open("wb") as file:
        for batch in batches:
            if writer is None:
                new = arrow.parquet.ParquetWriter if format_ == "parquet" else arrow.ipc.new_stream
                writer = new(file, batch.schema)
            writer.write_batch(batch)
        if writer is not None:
            writer.close()
    temporary.replace(path)


def _token_rows(arrow: Any, store: TokenStore, split: SplitName, wanted: range) -> Iterator[Any]:
    for start in range(wanted.start, wanted.stop, _ROWS):
        samples = range(start, min(start + _ROWS, wanted.stop))
        tokens, positions = store.split(split).get_batch(samples)
        columns = {"sample": arrow.array(samples, arrow.int64())}
        columns |= {"tokens": _rows(arrow, tokens), "positions": _rows(arrow, positions)}
        yield arrow.record_batch(columns)


def _logit_rows(arrow: Any, store: LogitStore, wanted: range) -> Iterator[Any]:
    for start in range(wanted.start, wanted.stop, _ROWS):
        samples = range(start, min(start + _ROWS, wanted.stop))
        names = store.manifest.columns
        ids, logprobs, mass, *extra = store.get_batch(samples, columns=names)
        kept = np.isfinite(logprobs)
        ends = np.append(0, np.cumsum(kept.sum(axis=2).ravel())).astype(np.int32)
        columns = {"sample": arrow.array(samples, arrow.int64())}
        for name, values in (("ids", ids), ("logprobs", logprobs)):
            positions = arrow.ListArray.from_arrays(ends, arrow.array(values[kept]))
            columns[name] = arrow.ListArray.from_arrays(_even(*mass.shape), positions)
        per_position = zip(("mass", *names), (mass, *extra), strict=True)
        yield arrow.record_batch({**columns, **{name: _rows(arrow, values) for name, values in per_position}})


def _rows(arrow: Any, values: Any) -> Any:
    """A [B, N] array as B lists."""
    return arrow.ListArray.from_arrays(_even(*values.shape), arrow.array(values.ravel()))


def _even(rows: int, length: int) -> Any:
    return (np.arange(rows + 1) * length).astype(np.int32)


def _library() -> Any:
    try:
        import pyarrow  # noqa: PLC0415 - only export needs it
        import pyarrow.ipc  # noqa: PLC0415 - as above
        import pyarrow.parquet  # noqa: PLC0415 - as above
    except ImportError as error:
        raise EnvironmentFault("the `pyarrow` package is missing", remedy="pip install 'pdforge[data]'") from error
    return pyarrow
