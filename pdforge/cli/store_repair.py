"""`pdforge store repair`: damaged shards out, and the stage that writes them once more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pdforge.cli.options import ClusterRootOption, RootOption
from pdforge.errors import StoreError, StoreMissing, UsageError
from pdforge.layout import StageDirectory

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The start of an identity, or a path.")]


def repair_command(store: StoreArgument, root: RootOption = None, cluster: ClusterRootOption = "local") -> None:
    """Set damaged shards of a store aside and run its stage again, which writes those shards and no others.

    An unfinished store is finished.

    Example: `pdforge store repair 3f9a`
    """
    from pdforge.launch.again import run_again  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.launch.find import root_of  # noqa: PLC0415 - as above
    from pdforge.launch.lock import is_locked  # noqa: PLC0415 - as above
    from pdforge.launch.submission import held_by_slurm  # noqa: PLC0415 - as above
    from pdforge.store.inspect import locate, set_aside, verify  # noqa: PLC0415 - as above

    path = locate(root_of([], root, cluster), store)
    stage = StageDirectory(Path(path).parent)
    if is_locked(stage):
        raise UsageError(f"{path}: an attempt of its stage runs", remedy="wait for its end, or cancel it")
    if held := held_by_slurm(stage):
        raise UsageError(f"{path}: {held.why}", remedy=held.remedy)
    try:
        damage = verify(path, workers=os.cpu_count() or 1)
    except StoreMissing as error:
        typer.echo(error.message)
    else:
        if not damage:
            typer.echo(f"{path}: whole, nothing to repair")
            return
        for moved in set_aside(path, {found.file for found in damage}):
            typer.echo(f"set aside: {moved}")
    stage.done.unlink(missing_ok=True)
    typer.echo(f"running the stage of {stage.path} again")
    run_again(stage, stage.path.name)
    left = verify(path, workers=os.cpu_count() or 1)
    if left:
        raise StoreError(f"{path}: still damaged: {left[0].file}: {left[0].what}", remedy="check the disk")
    typer.echo(f"{path}: whole")
