"""What runs have left behind: results of finished stages, rows of metrics. What is not finite is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pdforge.errors import UsageError
from pdforge.layout import StageDirectory


def stage_results(directory: Path) -> dict[str, Any] | None:
    """The results in a stage's `done.json`; None where the stage is not done.

    Raises:
        UsageError: the file is damaged.
    """
    file = StageDirectory(directory).done
    try:
        done = _parsed(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(file, str(error)) from error
    results = done.get("results") if isinstance(done, dict) else None
    if not isinstance(results, dict):
        raise _damaged(file, "no `results` in it")
    return results


def metric_rows(directory: Path) -> list[dict[str, Any]]:
    """The rows of a stage's `metrics.jsonl` in the order of their steps; none where there is no such file.

    A step may have several rows, as the held-out loss has its own: they are joined, the later one counts. A cut-off
    last line is left out.

    Raises:
        UsageError: a line before the last is damaged.
    """
    file = StageDirectory(directory).metrics
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = _parsed(line)
            rows.setdefault(int(row["step"]), {}).update(row)
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise _damaged(file, f"line {number}: {error}") from error
    return [rows[step] for step in sorted(rows)]


def _parsed(text: str) -> Any:
    """JSON as Python writes it, with None for NaN and the infinities."""
    return json.loads(text, parse_constant=lambda _: None)


def _damaged(file: Path, reason: str) -> UsageError:
    return UsageError(f"{file} is damaged: {reason}", remedy="delete the stage's directory and run the recipe again")
