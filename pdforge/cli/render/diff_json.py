"""A difference for programs. Keys are never renamed; new ones may be added."""

from __future__ import annotations

from typing import Any

from pdforge.cli.render.as_json import to_json
from pdforge.review.diff import Diff, RunDiff, StageChange


def diff_json(difference: Diff) -> str:
    """The whole difference as JSON."""
    values = {
        "changes_science": difference.changes_science,
        "runs": [_run(run) for run in difference.runs],
        "removed": difference.removed,
        "added": difference.added,
    }
    return to_json(values) + "\n"


def _run(run: RunDiff) -> dict[str, Any]:
    return {
        "name": run.name,
        "effect": run.effect.name.lower(),
        "old": {"hash": run.old.hash, "directory": run.old.directory},
        "new": {"hash": run.new.hash, "directory": run.new.directory},
        "fields": [
            {"field": f.field, "old": f.old, "new": f.new, "effect": f.effect.name.lower(), "stages": f.stages}
            for f in run.fields
        ],
        "stages": [_stage(change) for change in run.stages],
        "new_flops": run.new_flops,
    }


def _stage(change: StageChange) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "fate": change.fate.name.lower(),
        "old": {"identity": change.old.identity, **change.old_figures.model_dump()} if change.old else None,
        "new": {"identity": change.new.identity, **change.new_figures.model_dump()} if change.new else None,
    }
