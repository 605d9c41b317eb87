"""Models and tokenizers in Hugging Face's format: directories, fetched from the hub where they are none."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdforge.errors import EnvironmentFault

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"

_TEXTS = ("*.json", "*.model", "*.txt", "*.jinja")
"""Of a repository, all but weights and code."""


def require_files(folder: Path, place: str, *, gguf: str | None = None) -> None:
    """Weights and configuration are there, every shard of them.

    Args:
        folder: the model.
        place: the recipe's field, for the message.
        gguf: the one file that holds all of it, where the model is one.

    Raises:
        EnvironmentFault: names the file that is not.
    """
    if gguf is not None:
        if not (folder / gguf).is_file():
            there = ", ".join(sorted(file.name for file in folder.glob("*.gguf"))) or "none"
            raise EnvironmentFault(
                f"{place}: there is no {folder / gguf}", remedy=f"set gguf_file to one that is there: {there}"
            )
        return
    index = folder / INDEX
    shards = {WEIGHTS}
    if index.is_file():
        named = read_object(index, place).get("weight_map")
        if not isinstance(named, dict):
            raise EnvironmentFault(f"{place}: {index} lists no weights", remedy="fetch the directory again")
        shards = set(named.values())
    for name in sorted({CONFIG, *shards}):
        if not (folder / name).is_file():
            raise EnvironmentFault(
                f"{place}: there is no {folder / name}",
                remedy=f"name a directory with {CONFIG} and {WEIGHTS}, or all its shards and {INDEX}; "
                "weights in another format must be saved as safetensors first",
            )


def read_object(file: Path, place: str) -> dict[str, Any]:
    """The JSON object in a file; raises EnvironmentFault, with the recipe's field `place`."""
    try:
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"{place}: cannot read {file}: {error}", remedy="fetch the directory again") from error
    return content


def model_folder(path: str, revision: str | None, place: str, *, gguf: str | None = None, code: bool = False) -> Path:
    """The directory of a model: `path` itself, or the hub's repository of that name, fetched into the hub's cache.

    Args:
        path: a directory, or `organisation/name`.
        revision: of the repository; None: its main branch.
        place: the recipe's field, for messages.
        gguf: the file that holds the model, where it is one.
        code: whether the repository's Python files are wanted.

    Raises:
        EnvironmentFault: it cannot be had, or is not whole.
    """
    folder = Path(path)
    if not folder.is_dir():
        weights = ("*.safetensors",) if gguf is None else (gguf,)
        folder = fetch(path, revision, place, (*_TEXTS, *weights, *(("*.py",) if code else ())))
    require_files(folder, place, gguf=gguf)
    return folder


def fetch(repository: str, revision: str | None, place: str, patterns: Sequence[str]) -> Path:
    """The files of a repository of the hub that match, in the hub's cache; without a network, those that are there.

    Raises:
        EnvironmentFault: no such repository or revision, no access, or no network and nothing in the cache.
    """
    hub, errors = library("huggingface_hub"), library("huggingface_hub.errors")
    at = f"{repository} at revision {revision or 'main'}"
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except errors.RevisionNotFoundError as error:
        raise EnvironmentFault(
            f"{place}: the hub's repository {repository} has no revision {revision or 'main'}",
            remedy="name one of its commits, branches or tags",
        ) from error
    except errors.GatedRepoError as error:
        raise EnvironmentFault(
            f"{place}: the hub's repository {repository} is gated, and this account has no access",
            remedy=f"accept its terms at https://huggingface.co/{repository}, then `hf auth login`",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise EnvironmentFault(
            f"{place}: the hub has no repository {repository}, or it is private",
            remedy="check the name; for a private one `hf auth login` first",
        ) from error
    # whatever a network, a proxy or a full disk raises
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError) as error:
        raise EnvironmentFault(
            f"{place}: {at} is not in the hub's cache, and the hub cannot be reached: {_first_line(error)}",
            remedy=f"where there is a network: `hf download {repository} --revision {revision or 'main'}`, into the "
            "same HF_HOME; or name a local directory",
        ) from error


def library(name: str) -> Any:
    """A package of `pdforge[hf]`; raises EnvironmentFault where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentFault(f"the `{name}` package is missing", remedy="pip install 'pdforge[hf]'") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
