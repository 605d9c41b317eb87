"""`pdforge logs`: what a stage printed."""

from __future__ import annotations

from typing import Annotated

import typer

from pdforge.cli.options import ClusterOption, ProcessesOption, RootOption, SetOption, TargetArgument, VariantOption

StageArgument = Annotated[
    str | None,
    typer.Argument(metavar="STAGE", help="Title, kind or key. Default: the one that runs, failed or ran last."),
]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Go on printing while the attempt runs.")]
RankOption = Annotated[
    int | None, typer.Option("--rank", min=0, help="Of which rank. Default: the one that failed first, else 0.")
]
AttemptOption = Annotated[int | None, typer.Option("--attempt", min=1, help="Of which attempt. Default: the latest.")]
LinesOption = Annotated[int, typer.Option("--lines", min=0, help="Only the last lines; 0: everything.")]
PathOption = Annotated[bool, typer.Option("--path", help="Print the file's name instead of its content.")]


def logs_command(
    target: TargetArgument,
    stage: StageArgument = None,
    *,
    variant: VariantOption = None,
    overrides: SetOption = None,
    root: RootOption = None,
    cluster: ClusterOption = "local",
    processes: ProcessesOption = None,
    follow: FollowOption = False,
    rank: RankOption = None,
    attempt: AttemptOption = None,
    lines: LinesOption = 100,
    path: PathOption = False,
) -> None:
    """Print the log of a stage: standard output and error of one rank in one attempt.

    Example: `pdforge logs quickstart "train pd" -f`
    """
    from pdforge.launch.find import find_stage, find_targets, root_of  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.launch.logs import busiest_stage, find_log, read_log  # noqa: PLC0415
    from pdforge.layout import StageDirectory  # noqa: PLC0415
    from pdforge.plan.model import merged_stages  # noqa: PLC0415

    storage = root_of([target], root, cluster)
    plans = find_targets(
        [target],
        storage,
        variants=variant or (),
        overrides=overrides or (),
        cluster=cluster,
        processes=processes,
    )
    stages = merged_stages(plans)
    chosen = find_stage(stages, stage) if stage else busiest_stage(stages, storage)
    log = find_log(chosen, StageDirectory(storage / chosen.directory), attempt=attempt, rank=rank)
    if path:
        typer.echo(str(log.file))
        return
    for text in read_log(log, lines=lines, follow=follow):
        typer.echo(text, nl=False)
