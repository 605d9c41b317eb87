"""Whether tasks can be evaluated, as far as that can be known before a student is trained:

    python -m pdforge.evaluation.check '[{"tasks": [{"task": "piqa"}], "include": null}]'

Prints a JSON list of problems, `{"message", "remedy"}` each. A process of its own: the harness is slow to import, and
only recipes with tasks need it.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from pdforge.errors import EnvironmentFault, PdforgeError, UsageError
from pdforge.evaluation.harness import DataSet, Harness, library
from pdforge.recipe.models import EvaluationTask

_LOCAL = {"json", "csv", "text", "parquet", "arrow", "pandas", "xml", "webdataset"}
"""Loaders of `datasets` for files that the task names itself."""
_PATIENCE_S = 5


def problems(tasks: Sequence[EvaluationTask], include: Path | None) -> Iterator[PdforgeError]:
    """What is in the way of evaluating the tasks. Those whose data are files here are loaded to find out."""
    try:
        harness = Harness(include)
    except EnvironmentFault as error:
        yield error
        return
    yield from _broken_files(include)
    missing: set[str] = set()
    for task in tasks:
        try:
            wanted = {one for one in harness.data_sets(task.task) if not _is_local(one, include)}
            missing |= {one.path for one in wanted if not _is_cached(one)}
            if not wanted:
                harness.load(task)
        except PdforgeError as error:
            yield error
    if missing and (why := _unreachable()):
        yield EnvironmentFault(
            f"evaluate.tasks: the Hugging Face hub cannot be reached ({why}), and its cache does not hold "
            f"{', '.join(sorted(missing))}",
            remedy="evaluate where the hub can be reached, fill the cache ($HF_HOME) there first, or leave these tasks "
            "out: the held-out loss needs none",
        )


def _broken_files(include: Path | None) -> Iterator[PdforgeError]:
    """Task files that are no YAML: the harness passes over them without a word."""
    load = library("lm_eval.tasks._yaml_loader").load_yaml
    for file in sorted(include.rglob("*.yaml")) if include else []:
        try:
            load(file, resolve_func=False)
        except (library("yaml").YAMLError, ValueError, OSError) as error:
            first = " ".join(str(error).split())
            yield UsageError(f"evaluate.include: {file} is no task file: {first}", remedy="correct it, or remove it")


def _is_local(one: DataSet, include: Path | None) -> bool:
    return one.path in _LOCAL or (Path(include or "") / one.path).exists()


def _is_cached(one: DataSet) -> bool:
    """Whether the data set was loaded here before."""
    cache = Path(library("datasets").config.HF_DATASETS_CACHE)
    folders = [cache / name.replace("/", "___") for name in (one.path, one.path.lower())]
    return any(any(folder.glob(f"{one.configuration or ''}*")) for folder in folders if folder.is_dir())


def _unreachable() -> str:
    """Why the hub cannot be reached; empty: it can."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{variable} is set"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_PATIENCE_S):
            return ""
    except (OSError, ValueError) as error:
        return f"{endpoint}: {error}"


def _main(asked: str) -> None:
    found = [
        problem
        for one in json.loads(asked)
        for problem in problems(
            [EvaluationTask.model_validate(task) for task in one["tasks"]],
            Path(one["include"]) if one["include"] else None,
        )
    ]
    print(json.dumps([{"message": each.message, "remedy": each.remedy} for each in found]))


if __name__ == "__main__":
    _main(sys.argv[1])
