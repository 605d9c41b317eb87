"""`pdforge explain`: what a code means, and what says so."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from pdforge.cli.options import JsonOption
from pdforge.cli.render.as_json import to_json
from pdforge.errors import UsageError
from pdforge.recipe.rules import TOPICS, Topic
from pdforge.text import closest


def explain_command(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="A code such as PD101; without one, all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain the code of a finding, or list all codes.

    ```
    pdforge explain PD153
    pdforge explain
    ```
    """
    topics = list(TOPICS.values()) if code is None else [_topic(code)]
    if as_json:
        values = [
            {"code": t.code, "severity": str(t.severity), "title": t.title, "explanation": t.explanation}
            for t in topics
        ]
        sys.stdout.write(to_json(values if code is None else values[0]) + "\n")
        return
    console = Console(highlight=False)
    for topic in topics:
        console.print(Text.assemble((topic.code, "bold"), f"  {topic.severity:<7}  {topic.title}"), soft_wrap=True)
    if code is not None:
        console.print()
        console.print(Text(topics[0].explanation), width=min(console.width, 100))


def _topic(code: str) -> Topic:
    topic = TOPICS.get(code.upper())
    if topic is None:
        close = closest(code.upper(), TOPICS)
        hint = f"did you mean {close}? " if close else ""
        raise UsageError(f"no code {code!r}", remedy=f"{hint}`pdforge explain` lists them all")
    return topic
