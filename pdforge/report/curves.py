"""Loss curves and schedules of runs as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pdforge.report.model import Curve, Results, RunResult, Schedule

_FORMATS = ("png", "svg")
_BESIDE = 10
"""Entries from which on a legend stands beside its curves, and colours are used again with another kind of line."""
_COLUMN = 20
"""Entries of a legend below each other."""
_LINES = ("-", "--", "-.", ":")


def draw_curves(results: Results, folder: Path) -> list[Path]:
    """Draw losses and schedules; returns the files written to `folder`. None where no run has logged a step.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if not any(run.loss.tokens or run.heldout.tokens for run in results.runs):
        return []
    entries = len({run.group for run in results.runs}) + len(results.teachers) + 1
    beside = 2.2 * -(-entries // _COLUMN) if entries > _BESIDE else 0.0
    files = _draw(folder, "loss", (8 + beside, 5), 1, lambda axes: _losses(results, axes[0]))
    names = list(dict.fromkeys(schedule.name for run in results.runs for schedule in run.schedules))
    return files + _draw(
        folder, "schedules", (8, 2.2 * len(names)), len(names), lambda axes: _schedules(results.runs, names, axes)
    )


def _draw(folder: Path, name: str, size: tuple[float, float], rows: int, draw: Callable[[Any], None]) -> list[Path]:
    import matplotlib  # noqa: PLC0415 - heavy, and optional
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.subplots(rows, 1, squeeze=False)[:, 0])
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{suffix}" for suffix in _FORMATS]
    with matplotlib.rc_context({"svg.hashsalt": "pdforge"}):  # the same results give the same file
        for file in files:
            metadata = {"Date": None} if file.suffix == ".svg" else None
            figure.savefig(file, dpi=150, metadata=metadata)
    return files


def _losses(results: Results, axes: Any) -> None:
    """Lines are smoothed training losses (of few runs as logged, too: faint), dots held-out ones, grey teachers'."""
    styles: dict[str, tuple[str, str]] = {}
    few = len({run.group for run in results.runs}) <= _BESIDE
    for run in results.runs:
        if not run.loss.tokens and not run.heldout.tokens:
            continue
        label = run.group if run.group not in styles else None  # its other seeds share the style
        number = len(styles)
        style = (f"C{number % _BESIDE}", _LINES[number // _BESIDE % len(_LINES)])
        color, line = styles.setdefault(run.group, style)
        axes.plot(run.loss.tokens, smooth(run.loss).values, label=label, color=color, linestyle=line)
        if few:
            axes.plot(run.loss.tokens, run.loss.values, color=color, alpha=0.2, linewidth=0.8)
        axes.plot(run.heldout.tokens, run.heldout.values, "o-", color=color, markersize=4, linewidth=0.8)
    for teacher in results.teachers:
        if teacher.heldout_loss is not None:
            axes.axhline(
                teacher.heldout_loss, linestyle="--", color="grey", label=f"{teacher.name}, held out, at its end"
            )
    axes.set_xlabel("tokens")
    axes.set_ylabel("language-modelling loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.plot([], [], "o", color="grey", label="held out")
    _legend(axes)


def _schedules(runs: Sequence[RunResult], names: Sequence[str], axes: Sequence[Any]) -> None:
    """One panel a schedule; runs with one and the same curve share a line."""
    for panel, name in zip(axes, names, strict=True):
        for label, schedule in distinct(runs, name):
            panel.plot(schedule.steps, schedule.values, label=label)
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
        _legend(panel)
    axes[-1].set_xlabel("step")


def distinct(runs: Sequence[RunResult], name: str) -> list[tuple[str, Schedule]]:
    """The different curves of a schedule, each with the names of the groups that follow it."""
    found: list[tuple[Schedule, list[str]]] = []
    for run in runs:
        for schedule in run.schedules:
            if schedule.name == name:
                same = next((groups for one, groups in found if one == schedule), None)
                if same is None:
                    found.append((schedule, same := []))
                same += [run.group] if run.group not in same else []
    return [(_some(groups), schedule) for schedule, groups in found]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _legend(axes: Any) -> None:
    entries = len(axes.get_legend_handles_labels()[1])
    if entries > _BESIDE:
        columns = -(-entries // _COLUMN)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, ncols=columns)
    else:
        axes.legend(fontsize="small")


def smooth(curve: Curve) -> Curve:
    """Moving averages over a tenth of the curve."""
    values, width = curve.values, max(1, len(curve.values) // 10)
    means = [sum(part := values[max(0, i + 1 - width) : i + 1]) / len(part) for i in range(len(values))]
    return Curve(tokens=curve.tokens, values=means)
