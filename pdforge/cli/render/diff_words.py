"""The words in which every format tells a difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pdforge.plan.model import StageFigures, StageKind
from pdforge.review.diff import Diff, Fate, FieldChange, RunDiff, StageChange
from pdforge.text import count, size

_LONGEST = 72

_RESULT: dict[StageKind, str] = {
    "tokenize": "token store",
    "pretrain-teacher": "teacher",
    "capture": "logit store",
    "train": "student",
    "tokenize-conversations": "conversations",
    "finetune": "fine-tuned student",
    "export": "exported student",
    "evaluate": "evaluation",
}
_AGAIN: dict[StageKind, str] = {
    "tokenize": "built again",
    "pretrain-teacher": "trained again",
    "capture": "captured again",
    "train": "trained again",
    "tokenize-conversations": "built again",
    "finetune": "fine-tuned again",
    "export": "exported again",
    "evaluate": "evaluated again",
}


def value(written: Any) -> str:
    """A value of a field, in one short line."""
    text = "–" if written is None else json.dumps(written, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def effect(change: FieldChange) -> str:
    """`changes the science: logit store, student`."""
    results = ", ".join(_RESULT.get(kind, kind) for kind in change.stages)
    return f"{change.effect}{f': {results}' if results else ''}"


def result(change: StageChange) -> str:
    """What a stage makes, of a chain of teachers for whom."""
    stage = change.new or change.old
    assert stage is not None
    if change.kind == "pretrain-teacher":
        return stage.title.partition(" ")[2]
    _, of, whom = stage.title.partition(" of ") if change.kind == "capture" else ("", "", "")
    return f"{_RESULT.get(change.kind, change.kind)}{of}{whom}"


def fate(change: StageChange) -> str:
    """What becomes of it."""
    if change.fate is Fate.AGAIN:
        return _AGAIN.get(change.kind, str(Fate.AGAIN))
    if change.kind == "train" and change.fate is Fate.REUSED:
        return "the same run: goes on where it is"
    return str(change.fate)


def figures(change: StageChange) -> list[str]:
    """Steps, tokens, FLOPs and bytes: `old → new` where they differ, one cell each."""
    return [
        _change(change, lambda f: "" if f.steps is None else f"{f.steps:,}"),
        _change(change, lambda f: "" if f.tokens is None else count(f.tokens)),
        _change(change, lambda f: "" if f.flops is None else f"{f.flops:.2e}"),
        _change(change, _bytes),
    ]


def cost(run: RunDiff) -> str:
    """What is to be computed once the old run is done."""
    if all(stage.fate in (Fate.REUSED, Fate.DROPPED) for stage in run.stages):
        return "nothing is computed again"
    flops = run.new_flops
    return (
        f"after the old run, the new one takes {'an unknown number of' if flops is None else f'{flops:.2e}'} FLOPs more"
    )


def others(difference: Diff) -> list[str]:
    """Runs that only one side has."""
    return [f"{name}: only in OLD" for name in difference.removed] + [
        f"{name}: only in NEW" for name in difference.added
    ]


def _bytes(figures: StageFigures) -> str:
    if figures.bytes is None and figures.bytes_at_most is not None:
        return f"≤ {size(figures.bytes_at_most)}"
    return "" if figures.bytes is None else size(figures.bytes)


def _change(change: StageChange, show: Callable[[StageFigures], str]) -> str:
    before, after = show(change.old_figures), show(change.new_figures)
    if change.old is None or before == after:
        return after
    return before if change.new is None else f"{before or '–'} → {after or '–'}"
