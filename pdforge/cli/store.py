"""`pdforge store`: list token and logit stores, show what they hold, check that they hold it, and look after them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdforge.cli.options import ClusterRootOption, JsonOption, RootOption
from pdforge.cli.store_export import export_command
from pdforge.cli.store_gc import gc_command
from pdforge.cli.store_repair import repair_command
from pdforge.errors import ExitCode, StoreMissing

if TYPE_CHECKING:
    from rich.console import Console


store_command = typer.Typer(no_args_is_help=True, help="Token and logit stores: list, measure, verify, repair, export.")
store_command.command("repair")(repair_command)
store_command.command("export")(export_command)
store_command.command("gc")(gc_command)

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The start of an identity, or a path.")]
StoresArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[STORE]...", help="Identities or paths. Default: every store of the root."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", "-j", min=1, metavar="N", help="Threads that read. Default: one a core.")
]
SetAsideOption = Annotated[
    bool,
    typer.Option("--set-aside", help="Take damaged shards out of the store, so that its stage writes them again."),
]


@store_command.command("ls")
def ls_command(root: RootOption = None, cluster: ClusterRootOption = "local", as_json: JsonOption = False) -> None:
    """List the stores below the root.

    Example: `pdforge store ls`
    """
    from pdforge.launch.find import root_of  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.store.inspect import find_stores  # noqa: PLC0415 - as above

    base = root_of([], root, cluster)
    stores = find_stores(base)
    if as_json:
        typer.echo(json.dumps([{**asdict(found), "path": str(found.path)} for found in stores], indent=1))
        return
    if not stores:
        typer.echo(f"no stores below {base}")
        return
    from rich.table import Table  # noqa: PLC0415 - not needed for --json
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table("store", "identity", "state", box=None, pad_edge=False)
    for name in ("sequences", "tokens", "size"):
        table.add_column(name, justify="right")
    for found in stores:
        sequences = "" if found.sequences is None else f"{found.sequences:,}"
        tokens = "" if found.tokens is None else f"{found.tokens:,}"
        row = (found.kind, found.identity, found.state, sequences, tokens, _size(found.bytes))
        table.add_row(*(Text(cell) for cell in row))
    _console().print(table)


@store_command.command("stats")
def stats_command(
    store: StoreArgument,
    root: RootOption = None,
    cluster: ClusterRootOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Show what a store holds, what it costs, and how near it is to what was captured.

    Example: `pdforge store stats 3f9a`
    """
    from pdforge.launch.find import root_of  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.store.inspect import locate, open_store, statistics  # noqa: PLC0415 - as above

    figures = statistics(open_store(locate(root_of([], root, cluster), store)))
    if as_json:
        typer.echo(json.dumps(figures, indent=1))
    elif figures["kind"] == "token store":
        _print_tokens(figures)
    else:
        _print_logits(figures)


@store_command.command("verify")
def verify_command(
    stores: StoresArgument = None,
    *,
    root: RootOption = None,
    cluster: ClusterRootOption = "local",
    workers: WorkersOption = None,
    aside: SetAsideOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read every byte of stores and recompute every checksum. Exit code 1 where something is damaged.

    Example: `pdforge store verify`
    """
    from pdforge.launch.find import root_of  # noqa: PLC0415 - keeps `--help` quick
    from pdforge.store.inspect import find_stores, locate, set_aside, verify  # noqa: PLC0415 - as above

    base = root_of([], root, cluster)
    paths: list[str | Path] = (
        [locate(base, name) for name in stores] if stores else [found.path for found in find_stores(base)]
    )
    if not paths:
        raise StoreMissing(f"no stores below {base}", remedy="--root, --cluster or $PDFORGE_ROOT says where")
    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            damage = verify(path, workers=workers or os.cpu_count() or 1)
        except StoreMissing as error:
            if stores:
                raise
            rows.append({"store": str(path), "state": "unfinished", "damage": [], "detail": error.message})
            continue
        moved = set_aside(path, {found.file for found in damage}) if aside and damage else []
        state = "damaged" if damage else "whole"
        rows.append({"store": str(path), "state": state, "damage": [asdict(d) for d in damage], "set_aside": moved})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        _print_verdicts(rows)
    if any(row["damage"] for row in rows):
        raise typer.Exit(ExitCode.FINDINGS)


def _print_verdicts(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        typer.echo(f"{row['store']}: {row.get('detail') or row['state']}")
        for damage in row["damage"]:
            place = damage["file"] if damage["block"] is None else f"{damage['file']}, block {damage['block']}"
            typer.echo(f"  {place}: {damage['what']}")
        for name in row.get("set_aside", []):
            typer.echo(f"  set aside: {name}")
        if row["damage"]:
            typer.echo("  `pdforge store repair` sets damaged shards aside and has their stage write them again")


def _print_tokens(figures: dict[str, Any]) -> None:
    _facts(figures, "identity", "content", "tokenizer", "vocabulary", "sequence_length")
    for name in ("train", "validation"):
        split = figures[name]
        text, stored = _size(split["text_bytes"]), _size(split["bytes"])
        typer.echo(
            f"{name:<16} {split['sequences']:,} sequences, {split['tokens']:,} tokens, "
            f"{split['documents']:,} documents, {text} of text, {stored} stored"
        )


def _print_logits(figures: dict[str, Any]) -> None:
    from pdforge.store.fidelity import MASS_EDGES  # noqa: PLC0415 - keeps `--help` quick

    _facts(figures, "identity", "teacher", "tokens", "codec", "vocabulary", "sequence_length", "sequences")
    truncation = f"top-p {figures['top_p']}, top-k {figures['top_k']}"
    if figures["codec"] == "sampled":
        truncation = f"{figures['top_k']} draws, seed {figures['seed']}"
    typer.echo(f"{'truncation':<16} {truncation}")
    typer.echo(f"{'columns':<16} {', '.join(figures['columns']) or 'none'}")
    typer.echo(f"{'size':<16} {_size(figures['bytes'])}: {figures['bytes_per_token']:.1f} bytes a token")
    typer.echo(f"{'':<16} {figures['bits_per_entry']:.2f} bits a kept entry")
    typer.echo(f"{'':<16} {_size(figures['bytes_of_100B_tokens'])} for 100B tokens")
    typer.echo(f"{'kept':<16} {figures['kept_mean']:.1f} entries a position, mass {figures['mass_mean']:.4f}")
    typer.echo(
        f"{'fidelity':<16} KL {figures['kl_mean']:.2e} nats, worst {figures['kl_max']:.2e} "
        f"({figures['kl_positions']:,} positions compared)"
    )
    counts = figures["kept_histogram"]
    edges = [1, 2, 3, 5, 9, 17, 33, 65, 129, 256]
    spans = [(a, min(b, len(counts)) - 1) for a, b in pairwise(edges) if a < len(counts)]
    _bars("kept entries", [(str(a) if a == b else f"{a}-{b}", sum(counts[a : b + 1])) for a, b in spans])
    uppers = [*MASS_EDGES[1:], 1.0]
    labels = [f"{low:g}-{high:g}" for low, high in zip(MASS_EDGES, uppers, strict=True)]
    _bars("kept mass", list(zip(labels, figures["mass_histogram"], strict=True)))


def _facts(figures: dict[str, Any], *names: str) -> None:
    for name in names:
        value = figures[name]
        typer.echo(f"{name.replace('_', ' '):<16} {f'{value:,}' if isinstance(value, int) else value}")


def _bars(title: str, rows: list[tuple[str, int]]) -> None:
    total = sum(count for _, count in rows) or 1
    typer.echo(title)
    for label, count in rows:
        typer.echo(f"  {label:>12}  {100 * count / total:5.1f} %  {'█' * round(40 * count / total)}".rstrip())


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json

    return Console(soft_wrap=True)
