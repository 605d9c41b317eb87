"""The files of a corpus, and the hash that stands for its content in identities: what a plan must know of it.

Reading text out of them: `pdforge.store.corpus`.
"""

import hashlib
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pdforge.errors import EnvironmentFault
from pdforge.identity import canonical
from pdforge.recipe.models import Corpus, HuggingFaceCorpus, MixtureCorpus, StandardLibraryCorpus
from pdforge.store.filesystem import filesystem_of

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3"}
"""Of the standard library: installed packages, and tests with their deliberately odd files."""
_SKIPPED_PREFIXES = ("_sysconfigdata", "config-")
"""Written when Python is built: they differ from machine to machine."""

_UNIT_BYTES = 1 << 24
"""Consecutive small files make one unit of at least this size."""

HASHED_WHOLE = 1 << 28
"""Bytes of local files up to which a fingerprint reads all of a corpus; of a larger one it reads samples."""
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16
"""Read of each file of a large corpus: evenly spread, its first and last bytes among them."""


def fingerprint(corpora: Sequence[Corpus]) -> str:
    """Hash of what `pdforge.store.corpus.documents` yields, hex: names and contents of local files; names, sizes and
    tags of remote ones.

    Of local files of more than `HASHED_WHOLE` bytes together: names, sizes, and samples of each file's bytes. Of a
    data set of the hub: its name, configuration, split and revision.

    Raises:
        EnvironmentFault: a file is missing or cannot be read, or a pattern matches none.
    """
    return hashlib.sha256(canonical([_signature(corpus) for corpus in corpora]).encode()).hexdigest()


def unit_count(corpora: Sequence[Corpus]) -> int | None:
    """How many pieces `pdforge.store.corpus.units` makes; None where that cannot be told here, without a network."""
    counts = [_unit_count(corpus) for corpus in corpora]
    return None if None in counts else sum(filter(None, counts))


def _unit_count(corpus: Corpus) -> int | None:
    if isinstance(corpus, MixtureCorpus):
        return unit_count([source.corpus for source in corpus.sources])
    if isinstance(corpus, StandardLibraryCorpus):
        return 1
    if isinstance(corpus, HuggingFaceCorpus) or "://" in corpus.path:
        return None
    try:
        return sum(1 for _ in grouped(matches(corpus.path)[1]))
    except EnvironmentFault:
        return None


def matches(pattern: str) -> tuple[Any, dict[str, int]]:
    """The file system of a pattern and the files it matches, sorted, with their sizes in bytes."""
    if "://" not in pattern and "::" not in pattern and not _folder_before_wildcards(pattern).exists():
        raise _no_such_file(pattern)  # without importing fsspec, which takes as long as all the rest of a plan
    filesystem, path = filesystem_of(pattern)
    try:
        found = {str(name): info for name, info in filesystem.glob(path, detail=True).items()}
    except OSError as error:
        raise unreadable(pattern, error) from error
    sizes = {name: int(found[name]["size"] or 0) for name in sorted(found) if found[name]["type"] != "directory"}
    if not sizes:
        raise _no_such_file(pattern)
    return filesystem, sizes


def grouped(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Consecutive files, in groups that reach `_UNIT_BYTES`."""
    group: list[str] = []
    total = 0
    for path, size in sizes.items():
        group.append(path)
        total += size
        if total >= _UNIT_BYTES:
            yield group
            group, total = [], 0
    if group:
        yield group


def standard_library(size: int) -> Iterator[tuple[str, bytes]]:
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


def _signature(corpus: Corpus) -> list[Any]:
    if isinstance(corpus, MixtureCorpus):
        return [corpus.kind, [[source.weight, _signature(source.corpus)] for source in corpus.sources]]
    if isinstance(corpus, HuggingFaceCorpus):
        return _dataset_signature(corpus)
    options = corpus.model_dump(mode="json", exclude={"path"})
    if isinstance(corpus, StandardLibraryCorpus):
        return [options, [[name, hashlib.sha256(data).hexdigest()] for name, data in standard_library(corpus.bytes)]]
    filesystem, sizes = matches(corpus.path)
    if "file" in _protocols(filesystem):
        return [options, _local_signature(sizes)]
    tags = ("size", "ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    return [
        options,
        [[path, {tag: str(info[tag]) for tag in tags if tag in info}] for path, info in _infos(filesystem, sizes)],
    ]


def _dataset_signature(corpus: HuggingFaceCorpus) -> list[Any]:
    """Of a local folder its files; of the hub the names that the recipe gives: plans are made without a network."""
    folder = Path(corpus.path)
    if not folder.is_dir():
        return [corpus.model_dump(mode="json")]
    options = corpus.model_dump(mode="json", exclude={"path"})
    sizes = {str(path): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    return [options, _local_signature(sizes)] if sizes else [options]


def _local_signature(sizes: dict[str, int]) -> list[list[Any]]:
    paths = list(sizes)
    folder = Path(paths[0]).parent
    while not all(Path(path).is_relative_to(folder) for path in paths):
        folder = folder.parent
    names = [Path(path).relative_to(folder).as_posix() for path in paths]
    if sum(sizes.values()) <= HASHED_WHOLE:
        return [[name, _sha256(path)] for name, path in zip(names, paths, strict=True)]
    return [[name, sizes[path], _sha256_of_samples(path, sizes[path])] for name, path in zip(names, paths, strict=True)]


def _infos(filesystem: Any, paths: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
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
        raise unreadable(path, error) from error


def _sha256_of_samples(path: str, size: int) -> str:
    last, digest = max(0, size - _SAMPLE_BYTES), hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            for start in dict.fromkeys(last * n // (_SAMPLES - 1) for n in range(_SAMPLES)):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _folder_before_wildcards(pattern: str) -> Path:
    """The part of a local pattern that has no wildcard: nothing can match where it is not there."""
    fixed = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    path = Path(fixed).expanduser()
    return path if fixed == pattern or fixed.endswith("/") else path.parent


def _no_such_file(pattern: str) -> EnvironmentFault:
    return EnvironmentFault(f"{pattern}: no such file", remedy="check the corpus's `path`")


def unreadable(path: str, error: BaseException) -> EnvironmentFault:
    """A corpus's file that cannot be read."""
    return EnvironmentFault(f"{path}: cannot be read: {error}", remedy="check the corpus's `path` and its rights")
