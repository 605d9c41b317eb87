"""Results made by hand: groups of seeds with any figures."""

from __future__ import annotations

from typing import Any

from pdforge.report.model import HELDOUT, Curve, Metric, Results, RunResult


def run(group: str, seed: int = 0, result: float | None = None, *, tasks: Any = None, **fields: Any) -> RunResult:
    metrics = {} if result is None else {HELDOUT: Metric(value=result)}
    metrics |= {name: Metric(value=value, error=error) for name, (value, error) in (tasks or {}).items()}
    defaults: dict[str, Any] = {
        "recipe": "study",
        "state": "waiting" if result is None else "done",
        "is_baseline": group == "lm",
        "parameters": 1000,
        "steps": 10,
        "tokens": 1000,
        "flops_per_token": 6000.0,
        "teacher_flops": 0.0,
        "teacher": None,
        "store": None,
        "directory": f"study-{group}-{seed}",
    }
    return RunResult(name=f"{group}-seed-{seed}", group=group, seed=seed, metrics=metrics, **{**defaults, **fields})


def results(*runs: RunResult) -> Results:
    return Results(runs=list(runs))


def curve(*points: tuple[int, float]) -> Curve:
    return Curve(tokens=[tokens for tokens, _ in points], values=[value for _, value in points])
