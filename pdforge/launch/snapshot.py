"""A copy of the pdforge package that is running, for the jobs of a run: what is changed later changes none of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pdforge
from pdforge.compile.templates import template_directory
from pdforge.layout import RunDirectory, write_atomically, write_json

_SUFFIXES = {".py", ".j2", ".yaml", ".json", ".typed"}


def take_snapshot(run: RunDirectory) -> Path:
    """The folder, in the run directory, that holds the package as it is now; made when it is not there yet.

    Beside it lie `provenance.json` (version, commit) and `dirty.diff` (what differs from the commit).
    """
    package, files = Path(pdforge.__file__).parent, package_files()
    folder = run.code / content_hash(files)
    if folder.is_dir():
        return folder
    run.code.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=run.code, prefix=".snapshot."))
    for name, file in files.items():
        target = temporary / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    commit = _git(package, "rev-parse", "HEAD")
    write_json(temporary / "provenance.json", {"version": pdforge.__version__, "commit": commit.strip() or None})
    write_atomically(temporary / "dirty.diff", _git(package, "diff", "HEAD", "--", ".", str(template_directory())))
    try:
        temporary.rename(folder)
    except OSError:  # another submit was quicker with the same content
        shutil.rmtree(temporary)
    return folder


def package_files() -> dict[str, Path]:
    """The files of the package and its templates, by their place below a snapshot."""
    package, templates = Path(pdforge.__file__).parent, template_directory()
    found = {f"pdforge/{file.relative_to(package)}": file for file in _sources(package)}
    found.update({f"pdforge/_data/templates/{file.relative_to(templates)}": file for file in _sources(templates)})
    return dict(sorted(found.items()))


def content_hash(files: dict[str, Path]) -> str:
    """16 hexadecimal digits of names and contents."""
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(f"{name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _sources(folder: Path) -> list[Path]:
    return [
        file
        for file in folder.rglob("*")
        if file.suffix in _SUFFIXES and file.is_file() and "__pycache__" not in file.parts
    ]


def _git(folder: Path, *arguments: str) -> str:
    """What git says of the checkout around `folder`; empty where there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""
