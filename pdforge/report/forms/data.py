"""A report for programs: CSV, a row a run; JSON, from which every form can be made again."""

from __future__ import annotations

import csv
import io
import json
import reprlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pdforge.errors import UsageError
from pdforge.report.compare import Comparison
from pdforge.report.matched import matched
from pdforge.report.model import Results

_COMPARISON = "comparison"

_BOUNDS = {"less_than_equal": "should be at most {le:g}", "greater_than_equal": "should be at least {ge:g}"}
"""How pydantic's errors are said that would spell all digits of a bound."""


def to_csv(comparison: Comparison) -> str:
    """One row a run; empty cells for what is not known. Differences and bands are those of its group."""
    bytes_of = {store.identity: store.bytes for store in comparison.results.stores}
    rows = []
    for group in comparison.groups:
        for run in group.runs:
            row: dict[str, Any] = run.model_dump(
                include={"name", "recipe", "group", "seed", "state", "directory", "parameters", "steps", "tokens"}
            )
            for metric in comparison.metrics:
                found, difference = run.metrics.get(metric), comparison.difference(group, metric)
                row[metric] = found.value if found else None
                row[f"{metric}_standard_error"] = found.error if found else None
                row[f"{metric}_delta"] = difference.value if difference else None
                row[f"{metric}_band"] = difference.band if difference else None
                has_band = difference is not None and difference.band is not None
                row[f"{metric}_is_noise"] = difference.is_noise if difference and has_band else None
            row |= {"tokens_per_second": run.tokens_per_second, "device": run.device, "device_hours": run.device_hours}
            row |= {"flops_per_token": run.flops_per_token, "teacher_flops": run.teacher_flops}
            row |= {"store": run.store, "store_bytes": bytes_of.get(run.store or "")}
            rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["name"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(comparison: Comparison) -> str:
    """The results, and under `comparison` what follows from them."""
    page = comparison.results.model_dump(mode="json")
    page[_COMPARISON] = {
        "baseline": comparison.chosen,
        "groups": [
            {
                "name": group.name,
                "runs": [run.name for run in group.runs],
                "metrics": {metric: _metric(comparison, group.name, metric) for metric in comparison.metrics},
            }
            for group in comparison.groups
        ],
        "expected": [{**vars(one), "is_met": one.is_met} for one in comparison.expected()],
        "matched": [
            {key: vars(value) if hasattr(value, "amount") else value for key, value in vars(row).items()}
            for row in matched(comparison)
        ],
    }
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


def _metric(comparison: Comparison, name: str, metric: str) -> dict[str, Any]:
    group = next(group for group in comparison.groups if group.name == name)
    difference = comparison.difference(group, metric)
    return {
        "mean": group.mean(metric),
        "deviation": group.deviation(metric),
        "values": len(group.values(metric)),
        "delta": difference.value if difference else None,
        "band": difference.band if difference else None,
        "band_from": difference.source if difference else "",
        "is_noise": difference.is_noise if difference and difference.band is not None else None,
    }


def read_results(file: Path) -> Results:
    """The results in a file that `to_json` made; what follows from them is computed again.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    remedy = "write it with `pdforge report RUN... --format json`"
    try:
        page = json.loads(file.read_text(encoding="utf-8"))
        kept = {key: value for key, value in page.items() if key != _COMPARISON} if isinstance(page, dict) else {}
        return Results.model_validate(kept)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", remedy=remedy) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} holds no results of a report: {_fault(error)}", remedy=remedy) from error


def _fault(error: Exception) -> str:
    """What is wrong with a file of results, and where in it."""
    if not isinstance(error, ValidationError):
        at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        return f"it cannot be read as JSON{at}"
    first = error.errors()[0]
    place, value, bound = ".".join(map(str, first["loc"])), first["input"], _BOUNDS.get(first["type"])
    reason = bound.format_map(first["ctx"]) if bound else first["msg"].removeprefix("Input ")
    return f"{place}: {reason}" + ("" if isinstance(value, dict | list) else f", not {reprlib.repr(value)}")
