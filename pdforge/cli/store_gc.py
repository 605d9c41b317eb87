"""`pdforge store gc`: what below the root no run needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from pdforge import text
from pdforge.cli.options import ClusterRootOption, JsonOption, RootOption
from pdforge.layout import LOGITS, TEACHERS, TOKENS, StageDirectory

DeleteOption = Annotated[bool, typer.Option("--delete", help="Delete them. Without it they are only listed.")]


def gc_command(
    root: RootOption = None,
    cluster: ClusterRootOption = "local",
    delete: DeleteOption = False,
    as_json: JsonOption = False,
) -> None:
    """List token stores, teachers and logit stores that no run below the root needs; delete them only when told.

    A run needs the stages that its plan names. What an attempt is working on stays, and what SLURM may have a job for.

    Example: `pdforge store gc --delete`
    """
    from pdforge.launch.find import root_of  # noqa: PLC0415 - keeps `--help` quick

    base = root_of([], root, cluster)
    rows: list[dict[str, Any]] = []
    for path in unneeded(base):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        deleted = delete and _delete(path, base)
        rows.append({"path": str(path), "bytes": size, "deleted": deleted})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{'deleted  ' if row['deleted'] else ''}{row['path']}  {text.size(row['bytes'])}")
    total = text.size(sum(row["bytes"] for row in rows))
    if not rows:
        typer.echo(f"every store below {base} is needed by a run")
    elif not delete:
        typer.echo(f"{total} that no run needs; --delete deletes them")


def unneeded(root: Path) -> list[Path]:
    """Shared stage directories that no run's plan names and no attempt works on, nor a job of SLURM.

    Raises:
        UsageError: a run's plan cannot be read, so that nobody knows what it needs.
    """
    from pdforge.launch.lock import is_locked  # noqa: PLC0415 - as above
    from pdforge.launch.submission import held_by_slurm  # noqa: PLC0415 - as above

    needed = _needed(root)
    shared = [path for folder in (TOKENS, TEACHERS, LOGITS) for path in sorted((root / folder).glob("*"))]
    found = [StageDirectory(path) for path in shared if path.is_dir() and path not in needed]
    return [stage.path for stage in found if not is_locked(stage) and held_by_slurm(stage) is None]


def _needed(root: Path) -> set[Path]:
    from pdforge.launch.find import find_runs  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.plan.find import read_plan  # noqa: PLC0415 - as above

    return {root / stage.directory for run in find_runs(root) for stage in read_plan(run.path).stages}


def _delete(path: Path, root: Path) -> bool:
    """Delete a stage directory, unless somebody works on it, or a run has come to need it."""
    from pdforge.launch.lock import try_lock  # noqa: PLC0415 - keeps `--help` quick

    stage = StageDirectory(path)
    done, aside = stage.done, stage.done_aside
    lock = try_lock(stage)
    if lock is None:
        return False
    with lock:
        # Without its result first: what a killed deletion leaves must not pass for a whole stage, nor does a run that
        # begins from here on. One that begun before has written its plan, and is seen.
        if done.is_file():
            done.rename(aside)
        if path in _needed(root):
            if aside.is_file():
                aside.rename(done)
            return False
        shutil.rmtree(path)
    return True
