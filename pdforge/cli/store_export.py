"""`pdforge store export`: a store as Parquet or Arrow files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pdforge.cli.options import ClusterRootOption, RootOption

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The start of an identity, a path or a URL.")]
OutputArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the files.")]
FormatOption = Annotated[Literal["parquet", "arrow"], typer.Option("--format", help="Of the files.")]
SplitOption = Annotated[Literal["train", "validation"], typer.Option("--split", help="Of a token store.")]


def export_command(
    store: StoreArgument,
    output: OutputArgument,
    *,
    format_: FormatOption = "parquet",
    split: SplitOption = "train",
    root: RootOption = None,
    cluster: ClusterRootOption = "local",
) -> None:
    """Write a store's samples as files that other tools read, such as `datasets`; one file a shard.

    Example: `pdforge store export 3f9a exported && python -c "import datasets; datasets.load_dataset('exported')"`
    """
    from pdforge.launch.find import root_of  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.store.export import export  # noqa: PLC0415 - as above
    from pdforge.store.inspect import locate, open_store  # noqa: PLC0415 - as above

    files = export(open_store(locate(root_of([], root, cluster), store)), output, format=format_, split=split)
    size = sum(file.stat().st_size for file in files)
    typer.echo(f"{output}: {len(files)} files, {size:,} bytes")
