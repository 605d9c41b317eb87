"""The interactive charts of the HTML page, as Vega-Lite specifications with their data in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pdforge.report.compare import Comparison
from pdforge.report.curves import distinct, smooth
from pdforge.report.model import HELDOUT, RunResult

Spec = dict[str, Any]

_HEIGHT = 340
_SHOWN = {"condition": {"param": "shown", "value": 1}, "value": 0.08}


def charts(comparison: Comparison) -> list[tuple[str, str, Spec]]:
    """(title, explanation, specification) of every chart that the results have something for."""
    found = [
        ("Loss", _LOSS_TEXT, _losses(comparison)),
        ("Held-out loss", _HELDOUT_TEXT, _heldout(comparison)),
        ("Difference from the baseline", _DELTA_TEXT, _differences(comparison)),
        *_schedules(comparison),
    ]
    return [(title, text, spec) for title, text, spec in found if spec is not None]


_LOSS_TEXT = (
    "Language-modelling loss of the training batches, moving averages over a tenth of the curve, one line a run; "
    "dashed: the teacher, held out, at its end. Drag and scroll to zoom, double-click to go back, click in the legend "
    "to show one."
)
_HELDOUT_TEXT = "Measured on documents that no model was trained on."
_DELTA_TEXT = "Held-out loss minus the baseline's, nats a token: lower is better. Grey: what chance alone stays within."


def _losses(comparison: Comparison) -> Spec | None:
    rows = [
        {"group": run.group, "run": run.name, "tokens": tokens, "loss": round(loss, 5)}
        for run in comparison.results.runs
        for tokens, loss in zip(run.loss.tokens, smooth(run.loss).values, strict=True)
    ]
    return _over_tokens(comparison, rows, {"type": "line", "interpolate": "monotone", "clip": True}) if rows else None


def _heldout(comparison: Comparison) -> Spec | None:
    rows = [
        {"group": run.group, "run": run.name, "tokens": tokens, "loss": round(loss, 5)}
        for run in comparison.results.runs
        for tokens, loss in zip(run.heldout.tokens, run.heldout.values, strict=True)
    ]
    mark = {"type": "line", "point": {"filled": True, "size": 40}, "clip": True}
    return _over_tokens(comparison, rows, mark) if rows else None


def _over_tokens(comparison: Comparison, rows: list[Spec], mark: Spec) -> Spec:
    """Losses over tokens, with the teachers' as dashed lines."""
    teachers = [
        {"teacher": teacher.name, "loss": round(teacher.heldout_loss, 5)}
        for teacher in comparison.results.teachers
        if teacher.heldout_loss is not None
    ]
    lines = {
        "data": {"values": rows},
        "params": [_legend("group"), {"name": "zoom", "select": "interval", "bind": "scales"}],
        "mark": mark,
        "encoding": {
            "x": {"field": "tokens", "type": "quantitative", "axis": {"format": "~s"}, "title": "tokens"},
            "y": {
                "field": "loss",
                "type": "quantitative",
                "scale": {"zero": False},
                "title": "nats a token",
            },
            "color": _color("group", len({row["group"] for row in rows})),
            "detail": {"field": "run"},
            "opacity": _SHOWN,
            "tooltip": [{"field": "run"}, {"field": "tokens", "format": ","}, {"field": "loss", "format": ".4f"}],
        },
    }
    rules = {
        "data": {"values": teachers},
        "mark": {"type": "rule", "strokeDash": [6, 4], "color": "#888"},
        "encoding": {
            "y": {"field": "loss", "type": "quantitative"},
            "tooltip": [{"field": "teacher"}, {"field": "loss"}],
        },
    }
    return {"width": "container", "height": _HEIGHT, "layer": [lines, *([rules] if teachers else [])]}


def _differences(comparison: Comparison) -> Spec | None:
    rows = [
        {
            "group": group.name,
            "delta": round(difference.value, 5),
            "low": -(difference.band or 0.0),
            "high": difference.band or 0.0,
            "noise": "inside the noise" if difference.is_noise else "outside" if difference.band else "no band",
        }
        for group in comparison.groups
        if (difference := comparison.difference(group, HELDOUT))
    ]
    if not rows:
        return None
    place = {"field": "group", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 320}}
    band = {
        "mark": {"type": "bar", "color": "#888", "opacity": 0.3, "height": 14},
        "encoding": {
            "y": place,
            "x": {"field": "low", "type": "quantitative", "title": "Δ held-out loss"},
            "x2": {"field": "high"},
        },
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 90},
        "encoding": {
            "y": place,
            "x": {"field": "delta", "type": "quantitative"},
            "color": {"field": "noise", "type": "nominal", "title": None},
            "tooltip": [{"field": "group"}, {"field": "delta", "format": "+.4f"}, {"field": "high", "title": "band"}],
        },
    }
    return {"width": "container", "height": 24 * len(rows), "data": {"values": rows}, "layer": [band, points]}


def _schedules(comparison: Comparison) -> list[tuple[str, str, Spec]]:
    """A chart for each of α, τ and the learning rate."""
    runs = comparison.results.runs
    names = dict.fromkeys(schedule.name for run in runs for schedule in run.schedules)
    return [(f"Schedule: {name}", "Runs with the same curve share a line.", _schedule(runs, name)) for name in names]


def _schedule(runs: Sequence[RunResult], name: str) -> Spec:
    curves = distinct(runs, name)
    rows = [
        {"runs": label, "step": step, "value": value}
        for label, schedule in curves
        for step, value in zip(schedule.steps, schedule.values, strict=True)
    ]
    return {
        "width": "container",
        "height": 160,
        "data": {"values": rows},
        "params": [_legend("runs")],
        "mark": "line",
        "encoding": {
            "x": {"field": "step", "type": "quantitative"},
            "y": {"field": "value", "type": "quantitative", "title": name},
            "color": _color("runs", len(curves)),
            "opacity": _SHOWN,
            "tooltip": [{"field": "runs"}, {"field": "step"}, {"field": "value", "format": ".4g"}],
        },
    }


def _legend(field: str) -> Spec:
    return {"name": "shown", "select": {"type": "point", "fields": [field]}, "bind": "legend"}


def _color(field: str, colors: int) -> Spec:
    return {
        "field": field,
        "type": "nominal",
        "sort": None,
        "title": None,
        "scale": {"scheme": "tableau10" if colors <= 10 else "tableau20"},
        "legend": {"labelLimit": 320, "symbolLimit": 60},
    }
