"""The command line as typer sees it: every command, with its arguments and its help.

A command `name` is `name_command` in `pdforge/cli/name.py`: a function, or a `typer.Typer` for one with subcommands.
"""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from pdforge import __version__

COMMANDS = {
    "validate": "Recipes",
    "show": "Recipes",
    "explain": "Recipes",
    "recipes": "Recipes",
    "new": "Recipes",
    "schema": "Recipes",
    "diff": "Recipes",
    "plan": "From recipe to job",
    "tune": "From recipe to job",
    "compile": "From recipe to job",
    "run": "Runs",
    "submit": "Runs",
    "status": "Runs",
    "logs": "Runs",
    "cancel": "Runs",
    "resume": "Runs",
    "postmortem": "Runs",
    "ls": "Runs",
    "clusters": "Runs",
    "report": "Results",
    "store": "Results",
    "doctor": "This machine",
}
"""Every command, in the order of `--help`, with its panel there."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pdforge {__version__}")
        raise typer.Exit


def _pdforge(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Recipes, plans and runs of pre-training distillation.

    ```
    pdforge validate quickstart     # is the recipe sound?
    pdforge plan quickstart         # what would happen, and what does it cost?
    pdforge run quickstart          # do it here
    ```
    """


def build(arguments: list[str]) -> typer.Typer:
    """The application with the command that `arguments` names, or with all (for `--help`, or a name that is none).

    Only what is called is imported: `pdforge validate` never pays for the launcher.
    """
    app = typer.Typer(
        name="pdforge",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_pdforge)
    named = arguments[0] if arguments else ""
    for name in [named] if named in COMMANDS else COMMANDS:
        command = getattr(importlib.import_module(f"pdforge.cli.{name}"), f"{name}_command")
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=COMMANDS[name])
        else:
            app.command(name, rich_help_panel=COMMANDS[name])(command)
    return app
