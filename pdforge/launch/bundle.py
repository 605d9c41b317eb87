"""One file that holds what a failed run left, to read elsewhere or to send to somebody.

Only files that pdforge itself writes go in, by name; submitit's pickles, stores and checkpoints do not.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pdforge.launch.postmortem import Postmortem
from pdforge.layout import RunDirectory, StageDirectory
from pdforge.plan.model import Plan

_MOST_BYTES = 1 << 20
"""Of a longer file the end goes in."""
_MOST_WHOLE_BYTES = 32 << 20
"""Of files that are of no use in part."""


def write_bundle(postmortem: Postmortem, summary: str, plan: Plan, root: Path) -> Path:
    """Write the run's bundle in place of an earlier one.

    Values of the profile's secrets, where they are known here, are cut out: a program may have printed one.
    """
    run = RunDirectory(postmortem.run)
    secrets = [value.encode() for name in plan.profile.secrets if (value := os.environ.get(name))]
    page = json.dumps(postmortem.to_json(), indent=1, ensure_ascii=False) + "\n"
    handle, temporary = tempfile.mkstemp(dir=run.path, prefix=f".{run.postmortem.name}.")
    try:
        with os.fdopen(handle, "wb") as raw:
            with tarfile.open(fileobj=raw, mode="w:gz") as tar:
                _add(tar, "postmortem/summary.txt", _without(summary.encode(), secrets))
                _add(tar, "postmortem/postmortem.json", _without(page.encode(), secrets))
                for file in _records(postmortem):
                    if file.stat().st_size <= _MOST_WHOLE_BYTES:
                        _add(tar, f"postmortem/{file.relative_to(root)}", file.read_bytes())
                for file in _files(postmortem, run):
                    if file.is_file():
                        _add(tar, f"postmortem/{file.relative_to(root)}", _without(_end_of(file), secrets))
            raw.flush()
            os.fsync(raw.fileno())
        Path(temporary).replace(run.postmortem)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return run.postmortem


def _files(postmortem: Postmortem, run: RunDirectory) -> Iterator[Path]:
    yield from (run.recipe, run.plan, run.driver_log)
    for report in postmortem.stages:
        stage = StageDirectory(report.directory)
        yield from (stage.progress, stage.metrics, stage.job_json, stage.launch_script, stage.train_module)
        yield from sorted(stage.submissions.glob("[0-9]*.json"))
        yield from sorted(stage.scheduler.glob("*.sh"))
        yield from sorted(stage.scheduler.glob("*.out"))
        for attempt in stage.all_attempts():
            yield from (attempt.record, attempt.controller_log)
            for pattern in ("rank*.json", "sign*.json", "rank*.log", "stacks*.txt", "*_log.out"):
                yield from sorted(attempt.path.glob(pattern))


def _records(postmortem: Postmortem) -> Iterator[Path]:
    """What torch's flight recorder wrote."""
    for report in postmortem.stages:
        for attempt in StageDirectory(report.directory).all_attempts():
            yield from sorted(attempt.collectives.glob("*"))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    tar.addfile(entry, io.BytesIO(content))


def _end_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - _MOST_BYTES))
        return opened.read(_MOST_BYTES)


def _without(content: bytes, secrets: list[bytes]) -> bytes:
    for secret in secrets:
        content = content.replace(secret, b"[secret]")
    return content
