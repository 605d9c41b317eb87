"""`manifest.json` of a store: typed, checksummed, written last. A store without one is unfinished."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError

from pdforge.errors import StoreMismatch, StoreMissing
from pdforge.identity import canonical
from pdforge.store.files import DamagedFileError, Folder, publish

NAME = "manifest.json"
VERSION = 1


class Part(BaseModel):
    """Base of what a manifest says."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Shard(Part):
    """One shard file of a store."""

    file: str
    blocks: int
    bytes: int
    xxh3: str
    """Checksum of the shard's index, hex, and so of all it holds."""


Kind = Literal["pdforge-tokens", "pdforge-logits"]
M = TypeVar("M", bound=BaseModel)


def _render(kind: str, content: dict[str, Any]) -> str:
    checksum = xxhash.xxh3_64_hexdigest(canonical(content).encode())
    manifest = {"format": kind, "version": VERSION, "checksum": checksum, "content": content}
    return json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_manifest(folder: Folder, kind: Kind, content: BaseModel) -> None:
    """Publish the manifest: from here on the store is whole."""
    publish(folder.place(NAME), [_render(kind, content.model_dump(mode="json")).encode()])


def read_manifest(folder: Folder, kind: Kind, model: type[M]) -> M:
    """The manifest of a store of that kind.

    Raises:
        StoreMissing: no manifest there.
        StoreMismatch: a store of another kind, or of a later version.
        StoreDamaged: not what was written.
    """
    name, data = f"{folder}/{NAME}", folder.read(NAME)
    try:
        document = json.loads(data)
        stated, version, content = document["format"], document["version"], document["content"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(name, f"not a manifest: {error}") from error
    if stated in ("pdforge-tokens", "pdforge-logits") and stated != kind:
        raise StoreMismatch(f"{folder}: holds {_noun(stated)}, not {_noun(kind)}")
    if stated == kind and isinstance(version, int) and version > VERSION:
        raise StoreMismatch(
            f"{name}: manifest version {version}; this pdforge reads version {VERSION}", remedy="update pdforge"
        )
    # Every byte counts: a manifest is never edited, so whatever differs from its own rendering is damage.
    if not isinstance(content, dict) or _render(kind, content).encode() != data:
        raise DamagedFileError(name, "checksum does not hold")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise DamagedFileError(
            name, f"unexpected content: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
        ) from error


def kind_of(folder: Folder) -> Kind | None:
    """What a folder's manifest says it is; None where there is none, or none that says."""
    try:
        stated = json.loads(folder.read(NAME))["format"]
    except (StoreMissing, ValueError, KeyError, TypeError):
        return None
    return stated if stated in ("pdforge-tokens", "pdforge-logits") else None


def _noun(kind: str) -> str:
    return "a token store" if kind == "pdforge-tokens" else "a logit store"
