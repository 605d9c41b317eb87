"""Whether the packages that a training job needs are installed, told from their metadata: nothing is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from pdforge.errors import EnvironmentFault
from pdforge.versions import SPMD_TYPES, TORCH, TORCHTITAN

INSTALL = "pip install 'pdforge[train]'"


@dataclass(frozen=True)
class Package:
    """A package that training jobs need, as it is here."""

    name: str
    wanted: str
    """What is accepted, for people: `2.14.x`, `any version`."""
    found: str | None
    """The installed version; None: not installed."""
    ok: bool

    @property
    def complaint(self) -> str:
        """What is wrong with it; empty where nothing is."""
        if self.ok:
            return ""
        return f"{self.name} {self.found or 'is missing'}" + (f", {self.wanted} is needed" if self.found else "")


def training_packages() -> list[Package]:
    """The packages that every training job needs."""
    major, minor = TORCH
    return [
        _package("torch", f"{major}.{minor}.x", rf"{major}\.{minor}(\D.*)?"),
        _package("torchtitan", TORCHTITAN, re.escape(TORCHTITAN) + r"(\+.*)?"),
        _package("spmd_types", SPMD_TYPES, re.escape(SPMD_TYPES) + r"(\+.*)?"),
        _package("triton", "any version", ".*"),
        _package("tokenizers", "any version", ".*"),
    ]


def require_training_packages() -> None:
    """Refuse a machine that lacks a package, or has a version that gives other results.

    Raises:
        EnvironmentFault: names every such package and the command that installs them.
    """
    complaints = [package.complaint for package in training_packages() if not package.ok]
    if complaints:
        raise EnvironmentFault(f"this Python cannot run training jobs: {'; '.join(complaints)}", remedy=INSTALL)


def require_huggingface_packages(*, gguf: bool = False) -> None:
    """Refuse a machine that cannot read models in Hugging Face's format, and write them; with `gguf`, read GGUF too.

    Raises:
        EnvironmentFault: names every missing package and the command that installs them.
    """
    needed = ["transformers", "safetensors", "huggingface_hub", *(["gguf", "accelerate"] if gguf else [])]
    _require(needed, "this Python cannot read and write Hugging Face models", "hf")


def require_evaluation_packages() -> None:
    """Refuse a machine that cannot ask a model tasks.

    Raises:
        EnvironmentFault: names every missing package and the command that installs them.
    """
    _require(["lm_eval", "accelerate", "transformers"], "this Python cannot evaluate tasks", "eval")


def _require(names: Sequence[str], cannot: str, extra: str) -> None:
    missing = [name for name in names if installed(name) is None]
    if missing:
        raise EnvironmentFault(f"{cannot}: {', '.join(missing)} missing", remedy=f"pip install 'pdforge[{extra}]'")


def installed(name: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _package(name: str, wanted: str, pattern: str) -> Package:
    found = installed(name)
    return Package(name, wanted, found, found is not None and re.fullmatch(pattern, found) is not None)
