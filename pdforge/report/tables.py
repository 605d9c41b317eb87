"""The tables of a report, as text in cells: one content for the terminal, markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pdforge.report.compare import Comparison, Difference, Group
from pdforge.report.matched import Budget, matched
from pdforge.report.model import HELDOUT, RunResult, TeacherResult
from pdforge.text import count, size

TASKS_AT_ONCE = 6
"""Columns of one table of tasks: what a hundred characters hold."""


@dataclass(frozen=True)
class Table:
    """One table."""

    title: str
    """Empty for the first, which is the report's subject."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def tables(comparison: Comparison, *, every_run: bool = False) -> list[Table]:
    """All that the results have something for; `every_run`: also one of single runs, where seeds are repeated."""
    found = [
        _results(comparison),
        *_tasks(comparison),
        _tasks_before(comparison),
        _expected(comparison),
        _matched(comparison),
        _runs(comparison) if every_run and comparison.has_seeds else None,
        _stores(comparison),
    ]
    return [table for table in found if table is not None]


def summary(comparison: Comparison) -> list[Table]:
    """What a run ends with: the results, the tasks and the logit stores."""
    found = [_results(comparison), *_tasks(comparison), _tasks_before(comparison), _stores(comparison)]
    return [table for table in found if table is not None]


def _results(comparison: Comparison) -> Table:
    """Held-out loss of every teacher and group, beside what each took."""
    rows = [_teacher_row(teacher) for teacher in comparison.results.teachers]
    rows += [_group_row(comparison, group) for group in comparison.groups]
    delta, hours = _delta_column(comparison), _hours(comparison)
    columns = ("model", "parameters", "tokens", "seeds", "held-out loss", "±", delta, "ECE", "tokens/s", hours)
    return _without_empty_columns(Table("", columns, tuple(rows), tuple(_notes(comparison))))


def _teacher_row(teacher: TeacherResult) -> tuple[str, ...]:
    return (
        teacher.name,
        count(teacher.parameters),
        count(teacher.tokens),
        "",
        "not yet" if teacher.heldout_loss is None else f"{teacher.heldout_loss:.4f}",
        "",
        "",
        "",
        _rate(teacher.tokens_per_second),
        _hours_cell(teacher.device_hours),
    )


def _group_row(comparison: Comparison, group: Group) -> tuple[str, ...]:
    loss, deviation, ece = group.mean(HELDOUT), group.deviation(HELDOUT), group.mean("ece")
    finished, of = len(group.finished), len(group.runs)
    seeds = f"{of}" if finished == of else f"{finished} of {of}"
    rates = [run.tokens_per_second for run in group.runs if run.tokens_per_second]
    hours = [run.device_hours for run in group.runs if run.device_hours is not None]
    return (
        group.name,
        count(group.first.parameters),
        count(group.first.tokens),
        seeds if comparison.has_seeds else "",
        describe_state(group) if loss is None else f"{loss:.4f}",
        "" if deviation is None else f"{deviation:.4f}",
        difference_cell(comparison.difference(group, HELDOUT), ".4f"),
        "" if ece is None else f"{ece:.4f}",
        _rate(sum(rates) / len(rates) if rates else None),
        _hours_cell(sum(hours) if hours else None),
    )


def describe_state(group: Group) -> str:
    """How a group stands that has no result yet: by its furthest run."""
    run = max(group.runs, key=lambda one: (one.state != "waiting", one.done_tokens))
    part = f" {100 * run.done_tokens / run.tokens:.0f} %" if run.tokens and run.done_tokens else ""
    return {"waiting": "not yet", "done": "no result"}.get(run.state, f"{run.state}{part}")


def difference_cell(difference: Difference | None, spelled: str) -> str:
    """`-0.1701`; with ≈ before it where it lies inside the noise."""
    if difference is None:
        return ""
    return f"{'≈ ' if difference.is_noise else ''}{difference.value:+{spelled}}"


def _delta_column(comparison: Comparison) -> str:
    return f"Δ to {comparison.chosen}" if comparison.chosen else "Δ to α=0"


def _hours(comparison: Comparison) -> str:
    devices = {run.device for run in comparison.results.runs}
    return "GPU-hours" if devices == {"cuda"} else "CPU-hours" if devices == {"cpu"} else "device-hours"


def _notes(comparison: Comparison) -> list[str]:
    notes = ["held-out loss: nats a token, on documents that no model was trained on"]
    if _hours(comparison) == "CPU-hours":
        notes.append("CPU-hours: processes times the time that they lived, over all starts")
    differences = [d for group in comparison.groups if (d := comparison.difference(group, HELDOUT))]
    if comparison.has_seeds:
        notes.append("±: standard deviation over seeds, of one run")
    noises = [n for group in comparison.groups if (n := comparison.noise(group, HELDOUT))]
    if noises and differences:
        kinds = dict.fromkeys((noise.deviation, noise.freedom) for noise in noises)
        pooled = "; ".join(f"s = {deviation:.4f} with {freedom} degrees of freedom" for deviation, freedom in kinds)
        notes.append(
            f"≈: inside the noise, t(0.975)·s·√(1/n+1/m) of means over n and m seeds; {pooled}, pooled over the seeds "
            "of all students of one size and number of tokens. One difference of no effect in twenty lies outside"
        )
    elif differences:
        notes.append("no band of noise: no run was repeated with another seed")
    return notes


def _tasks(comparison: Comparison) -> list[Table]:
    """Accuracies, and their differences from the baseline; several tables where there are many tasks."""
    tasks = [name for name in comparison.metrics if name not in (HELDOUT, "ece")]
    found = []
    for first in range(0, len(tasks), TASKS_AT_ONCE):
        some = tasks[first : first + TASKS_AT_ONCE]
        having = [group for group in comparison.groups if any(group.values(task) for task in some)]
        rows = [(group.name, *(_accuracy(group, task) for task in some)) for group in having]
        note = "percent, ± standard error of the task's questions; means over seeds"
        found.append(Table("Tasks", ("run", *some), tuple(rows), (note,)))
        deltas = [
            (group.name, *(difference_cell(comparison.difference(group, task), ".1f") for task in some))
            for group in having
            if comparison.baseline(group)
        ]
        if deltas:
            note = "≈: inside the noise, of repeated seeds, else of the questions of both (normal, 95 %)"
            found.append(Table(f"Tasks, {_delta_column(comparison)}", ("run", *some), tuple(deltas), (note,)))
    return found


def _tasks_before(comparison: Comparison) -> Table | None:
    """Accuracies before the end (`evaluate.at`), a row a group and step."""
    tasks = list(dict.fromkeys(name for group in comparison.groups for name in group.tasks_before))
    rows = [
        (group.name, f"{step:,}", *(_accuracy(group, task, step) for task in tasks))
        for group in comparison.groups
        for step in group.steps_before
    ]
    note = "percent, ± standard error of the task's questions; means over seeds"
    return Table("Tasks before the end", ("run", "step", *tasks), tuple(rows), (note,)) if rows else None


def _accuracy(group: Group, task: str, step: int | None = None) -> str:
    value, error = group.mean(task, step), group.error(task, step)
    return "" if value is None else f"{value:.1f}" + ("" if error is None else f" ± {error:.1f}")


def _expected(comparison: Comparison) -> Table | None:
    """Ours beside what the recipes expect."""
    rows = []
    for one in comparison.expected():
        digits = ".4f" if one.metric in (HELDOUT, "ece") else ".1f"
        source = one.source if one.step is None else f"{one.source} @{one.step}"
        verdict = {None: "", True: "yes", False: "no"}[one.is_met]
        rows.append(
            (
                one.group,
                one.metric,
                source,
                "not measured" if one.ours is None else f"{one.ours:{digits}}",
                f"{one.theirs:{digits}}",
                "" if one.ours is None else f"{one.ours - one.theirs:+{digits}}",
                "" if one.our_delta is None else f"{one.our_delta:+{digits}}",
                "" if one.their_delta is None else f"{one.their_delta:+{digits}}",
                verdict,
            )
        )
    if not rows:
        return None
    columns = ("run", "metric", "source", "ours", "expected", "difference", "our Δ", "its Δ", "within tolerance")
    note = f"Δ: {_delta_column(comparison).removeprefix('Δ ')}, ours and the source's own"
    return _without_empty_columns(Table("Beside what the recipes expect", columns, tuple(rows), (note,)))


def _matched(comparison: Comparison) -> Table | None:
    """At equal tokens and at equal compute."""
    rows = [
        (
            row.group,
            row.baseline,
            *_budget(row.tokens, count),
            *_budget(row.flops, _flops),
            *_budget(row.flops_with_teacher, _flops),
            ("≤ " if row.at_most else "") + count(row.tokens_of_baseline) if row.tokens_of_baseline else "not reached",
        )
        for row in matched(comparison)
    ]
    if not rows:
        return None
    columns = ("run", "baseline", "tokens", "Δ", "FLOPs", "Δ", "with teacher", "Δ", "tokens to equal it")
    notes = (
        "each at the smaller of the two budgets, the other curve interpolated there in the logarithm of its tokens",
        "with teacher: one pass of the teacher over what the student reads of it counted as well, shared with nobody",
        "tokens to equal it: of the baseline, for the run's last held-out loss; in the middle of a run the learning "
        "rate has not decayed",
    )
    return Table("At equal tokens and equal compute", columns, tuple(rows), notes)


def _budget(budget: Budget | None, spell: Callable[[float], str]) -> tuple[str, str]:
    return ("", "") if budget is None else (spell(budget.amount), f"{budget.difference:+.4f}")


def _flops(number: float) -> str:
    return f"{number:.2e}"


def _runs(comparison: Comparison) -> Table:
    """Every run by itself."""
    rows = [(run.name, run.state, str(run.seed), _loss(run), run.directory) for run in comparison.results.runs]
    return Table("Runs", ("run", "state", "seed", "held-out loss", "directory"), tuple(rows))


def _loss(run: RunResult) -> str:
    return f"{run.metrics[HELDOUT].value:.4f}" if HELDOUT in run.metrics else ""


def _stores(comparison: Comparison) -> Table | None:
    """The logit stores that are whole."""
    rows = [
        (
            store.identity,
            "" if store.kept_count is None else f"{store.kept_count:.1f}",
            "" if store.kept_mass is None else f"{100 * store.kept_mass:.1f} %",
            "" if store.positions is None else count(store.positions),
            "" if store.bytes is None else size(store.bytes),
            str(sum(store.identity in (run.store, *run.further_stores) for run in comparison.results.runs)),
        )
        for store in comparison.results.stores
    ]
    columns = ("store", "entries a position", "teacher's probability", "positions", "bytes", "runs")
    return _without_empty_columns(Table("Logit stores", columns, tuple(rows))) if rows else None


def _rate(value: float | None) -> str:
    return f"{value:,.0f}" if value else ""


def _hours_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value < 1 else f"{value:,.1f}"


def _without_empty_columns(table: Table) -> Table:
    """The table without columns that have nothing in any row."""
    kept = [column for column in range(len(table.columns)) if any(row[column] for row in table.rows)]

    def pick(cells: Sequence[str]) -> tuple[str, ...]:
        return tuple(cells[column] for column in kept)

    return Table(table.title, pick(table.columns), tuple(map(pick, table.rows)), table.notes)
