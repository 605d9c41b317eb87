"""Loss curves of runs as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdforge.plan.model import Plan
from pdforge.report.results import metric_rows
from pdforge.report.summary import summarise

_FORMATS = ("png", "svg")


def draw_curves(plans: Sequence[Plan], root: Path, folder: Path) -> list[Path]:
    """Draw the language-modelling loss of every run against its tokens; returns the files written to `folder`.

    Lines are smoothed training losses (as logged: faint), dots held-out losses, a dashed line the teacher's. None
    where no run has metrics.

    Raises:
        ImportError: matplotlib is not installed.
        UsageError: a metrics file is damaged.
    """
    curves = {plan.label: metric_rows(root / plan.training.directory) for plan in plans}
    curves = {label: rows for label, rows in curves.items() if rows}
    if not curves:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - heavy, and optional
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for label, rows in curves.items():
        tokens, losses = _points(rows, "lm_loss")
        (line,) = axes.plot(tokens, _smooth(losses), label=label)
        axes.plot(tokens, losses, color=line.get_color(), alpha=0.2, linewidth=0.8)
        axes.plot(*_points(rows, "heldout_loss"), "o-", color=line.get_color(), markersize=5, linewidth=0.8)
    for row in summarise(plans, root):
        if row.role == "teacher" and row.heldout_loss is not None:
            axes.axhline(row.heldout_loss, linestyle="--", color="grey", label=f"{row.model}, held out, at its end")
    axes.set_xlabel("tokens")
    axes.set_ylabel("language-modelling loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.plot([], [], "o", color="grey", label="held out")
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"loss.{suffix}" for suffix in _FORMATS]
    for file in files:
        figure.savefig(file, dpi=150)
    return files


def _smooth(values: Sequence[float]) -> list[float]:
    """Moving averages over a tenth of the curve."""
    width = max(1, len(values) // 10)
    return [sum(part := values[max(0, i + 1 - width) : i + 1]) / len(part) for i in range(len(values))]


def _points(rows: Sequence[dict[str, Any]], column: str) -> tuple[list[float], list[float]]:
    """Tokens and values of the rows that have the column."""
    having = [row for row in rows if row.get(column) is not None and "tokens" in row]
    return [row["tokens"] for row in having], [row[column] for row in having]
