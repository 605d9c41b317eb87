"""What `run` shows: a live table on a terminal, few lines elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from conftest import make_stage
from rich.console import Console

from pdforge.launch import display
from pdforge.launch.display import Display, describe
from pdforge.launch.progress import Progress
from pdforge.launch.status import StageStatus

STAGE = make_stage("train pd", "count-pd/train")


def status(state, **progress):
    return StageStatus(STAGE.key, STAGE.title, Path("d"), state, 1, Progress(**progress) if progress else None)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=120)


def test_only_what_is_known_is_shown():
    full = Progress(step=1200, of=15000, loss=4.2104, tokens_per_second=12345.0, eta_seconds=62, message="saving")
    assert describe(full) == "1,200/15,000 steps  loss 4.210  12.3k tokens/s  1 min 02 s left  saving"
    assert describe(Progress()) == describe(None) == ""
    assert describe(Progress(step=3, unit="documents")) == "3 documents"


def test_lines_are_few_and_never_repeated(console, monkeypatch):
    shown = Display(console, [STAGE])
    with shown.showing():
        for step in range(5):
            shown.update(status("running", step=step, of=9))
        monkeypatch.setattr(display, "LINE_EVERY_S", 0.0)
        shown.update(status("running", step=7, of=9))
        shown.update(status("running", step=7, of=9))
        shown.update(status("done"))
    lines = console.file.getvalue().splitlines()
    assert lines == ["train pd: running  0/9 steps", "train pd: running  7/9 steps", "train pd: done"]


def test_a_terminal_gets_a_bar():
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    shown = Display(console, [STAGE])
    with shown.showing():
        shown.note("[not markup]")
        shown.update(status("running", step=3, of=9, loss=2.0))
    text = console.file.getvalue()
    assert "━" in text
    assert "loss 2.000" in text
    assert "[not markup]" in text
