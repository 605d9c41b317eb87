"""Stores as a person meets them: which are below a root, what they hold, whether they are whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdforge.errors import StoreError, StoreMissing
from pdforge.layout import TOKENIZER_FILE, StageDirectory, require_folder
from pdforge.store.files import SET_ASIDE, DamagedFileError, Folder
from pdforge.store.logits import LogitStore
from pdforge.store.manifest import NAME, kind_of
from pdforge.store.shardset import Damage
from pdforge.store.spec import KIND as LOGITS
from pdforge.store.spec import RANKS_FILE, read_spec, shard_name
from pdforge.store.tokens import KIND as TOKENS
from pdforge.store.tokens import TokenManifest, TokenStore

FOLDERS = {"tokens": "token store", "logits": "logit store"}
"""Folders of the root that hold stores, by what they hold."""


@dataclass(frozen=True)
class Found:
    """A store below a root."""

    kind: str
    identity: str
    path: Path
    state: str
    """`whole`, or how far it is, or what is wrong."""
    sequences: int | None
    """Training sequences; None where that is not known yet."""
    tokens: int | None
    bytes: int


def find_stores(root: Path) -> list[Found]:
    """Every store of a root, whole or not.

    Raises:
        UsageError: the root is no folder.
    """
    require_folder(root)
    return [
        _found(kind, stage)
        for folder, kind in FOLDERS.items()
        for stage in sorted((root / folder).glob("*"))
        if StageDirectory(stage).output.is_dir()
    ]


def locate(root: Path, name: str) -> str | Path:
    """The store that a person names: a path, a URL, or the start of an identity below the root.

    Raises:
        StoreMissing: there is none, or several.
    """
    if "://" in name:
        return name
    if "/" in name or (Path(name) / NAME).is_file():
        stage = StageDirectory(Path(name))
        return stage.output if (stage.output / NAME).is_file() else stage.path
    matches = [found for found in find_stores(root) if found.identity.startswith(name)]
    if len(matches) != 1:
        what = "no store" if not matches else f"{len(matches)} stores"
        raise StoreMissing(f"{name!r}: {what} of that name below {root}", remedy="`pdforge store ls` lists them")
    return matches[0].path


def open_store(path: str | Path) -> TokenStore | LogitStore:
    """The store at `path`, of whichever kind; raises as their `open` does."""
    folder = Folder(path)
    kind, names = kind_of(folder), folder.names()
    if kind == LOGITS or (kind is None and RANKS_FILE in names):
        return LogitStore.open(path)
    if kind == TOKENS or TOKENIZER_FILE in names:
        return TokenStore.open(path)
    raise StoreMissing(f"{path}: no store there", remedy="`pdforge store ls` lists stores")


def verify(path: str | Path, *, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """Everything in the store that is not as it was written.

    Raises:
        StoreMissing: no whole store there.
        StoreMismatch: of another version.
    """
    try:
        return open_store(path).verify(workers=workers, progress=progress)
    except DamagedFileError as error:  # the manifest or the rank table: nothing else is read to open a store
        return [Damage(error.file, error.block, error.what)]


def set_aside(path: str | Path, files: Iterable[str]) -> list[str]:
    """Take damaged files out of a store (renamed, not deleted), so that its stage writes them again.

    Returns the new names. The manifest and the stage's `done.json` go with them: the store is unfinished from now on.

    Raises:
        StoreError: the rank table is damaged: without it no shard can be read. Or the store is remote.
    """
    if "://" in str(path):
        raise StoreError(f"{path}: only a local store can be mended", remedy="mend it where it was written")
    path, wanted = Path(path), set(files)
    if RANKS_FILE in wanted:
        raise StoreError(
            f"{path}/{RANKS_FILE} is damaged: without the rank table no shard can be read",
            remedy=f"delete {path.parent} and capture again",
        )
    moved = []
    for file in [StageDirectory(path.parent).done, path / NAME, *(path / name for name in sorted(wanted - {NAME}))]:
        if file.is_file():
            moved.append(str(file.rename(file.with_name(file.name + SET_ASIDE))))
    return moved


def _found(kind: str, stage: Path) -> Found:
    path = StageDirectory(stage).output
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    state, sequences, length = "whole", None, None
    try:
        manifest = open_store(path).manifest
        sequences = manifest.train.sequences if isinstance(manifest, TokenManifest) else manifest.sequences
        length = manifest.sequence_length
    except StoreMissing:
        state = _progress(path) if kind == FOLDERS["logits"] else "unfinished"
    except StoreError as error:
        state = error.message
    tokens = sequences * length if sequences is not None and length is not None else None
    return Found(kind, stage.name, path, state, sequences, tokens, size)


def _progress(path: Path) -> str:
    folder = Folder(path)
    try:
        spec, _, _ = read_spec(folder)
    except StoreMissing:
        return "unfinished"
    there = folder.names()
    return f"{sum(shard_name(n) in there for n in range(spec.shards))} of {spec.shards} shards"


def statistics(store: TokenStore | LogitStore) -> dict[str, Any]:
    """Figures of a store, JSON-able: sizes in bytes, histograms as lists."""
    manifest = store.manifest
    common = {
        "identity": manifest.identity,
        "vocabulary": manifest.vocabulary,
        "sequence_length": manifest.sequence_length,
    }
    if isinstance(manifest, TokenManifest):
        splits = {name: getattr(manifest, name) for name in ("train", "validation")}
        return {
            "kind": "token store",
            **common,
            "content": manifest.content,
            "tokenizer": manifest.tokenizer,
            **{
                name: {
                    "sequences": split.sequences,
                    "tokens": split.sequences * manifest.sequence_length,
                    "documents": split.documents,
                    "text_bytes": split.text_bytes,
                    "bytes": sum(shard.bytes for shard in split.shards),
                }
                for name, split in splits.items()
            },
        }
    fidelity = manifest.fidelity
    bytes_per_token = manifest.bytes / fidelity.positions
    return {
        "kind": "logit store",
        **common,
        "teacher": manifest.teacher,
        "tokens": manifest.tokens,
        "top_p": manifest.top_p,
        "top_k": manifest.top_k,
        "seed": manifest.seed,
        "columns": list(manifest.columns),
        "codec": manifest.codec,
        "sequences": manifest.sequences,
        "positions": fidelity.positions,
        "entries": fidelity.entries,
        "bytes": manifest.bytes,
        "bits_per_entry": 8 * manifest.bytes / fidelity.entries,
        "bytes_per_token": bytes_per_token,
        "bytes_of_100B_tokens": bytes_per_token * 100e9,
        "kept_mean": fidelity.entries / fidelity.positions,
        "mass_mean": fidelity.mass_mean,
        "kl_mean": fidelity.kl_mean,
        "kl_max": fidelity.kl_max,
        "kl_positions": fidelity.sampled,
        "kept_histogram": list(fidelity.counts),
        "mass_histogram": list(fidelity.masses),
        "capture": manifest.capture,
    }
