"""`evaluate`: held-out loss and calibration of the finished student, then its tasks, one after another.

Each measurement is kept as soon as it is made, so a stage that was killed goes on at the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pdforge import heartbeat
from pdforge.distill.calibration import Calibration
from pdforge.evaluation.card import CARD, add_to_card
from pdforge.layout import StageDirectory, read_json, write_json
from pdforge.plan.jobs import EvaluateJob
from pdforge.recipe.models import EvaluationTask
from pdforge.stages import stop
from pdforge.stages.device import require_device
from pdforge.stages.entry import Results, Stopped
from pdforge.store.tokens import TokenStore
from pdforge.titan.inference import load

LOGITS_AT_ONCE = 1 << 24
"""Logits, in numbers, that exist at one time."""
SEQUENCES_AT_ONCE = 4

Measure = Callable[[], dict[str, Any]]


def run(job: EvaluateJob, directory: StageDirectory, rank: int, ranks: int) -> Results | Stopped:
    """Make every measurement that is not there yet.

    Raises:
        EnvironmentFault: no CUDA device where the job wants one, or a package or the data of a task are missing.
        UsageError: the harness has no such task.
    """
    del ranks
    if rank != 0:
        return {}
    require_device(job.device)
    tasks = _Tasks(job)
    measures: list[tuple[str, Measure]] = [("held-out text", partial(heldout, job, job.tokens))]
    if job.conversations:
        measures.append(("held-out answers", partial(heldout, job, job.conversations)))
    measures += [(task.label, partial(tasks.score, task)) for task in job.tasks]
    found: list[dict[str, Any]] = []
    for number, (name, measure) in enumerate(measures):
        if stop.requested():
            return "stopped"
        _report(directory, number, len(measures), name)
        file = Path(job.output) / f"{number:03d}.json"
        result = read_json(file)
        if result is None:
            result = {"name": name, **measure()}
            write_json(file, result)
        found.append(result)
        heartbeat.beat(number + 1)
    _report(directory, len(measures), len(measures), "")
    text, *others = found
    answers = others.pop(0) if job.conversations else {"positions": 0}
    results = {
        "heldout_loss": text["loss"],
        "ece": text["ece"],
        "next_token_accuracy": text["accuracy"],
        **({"answer_loss": answers["loss"], "answer_ece": answers["ece"]} if answers["positions"] else {}),
        **({"harness": version("lm_eval")} if job.tasks else {}),
        "tasks": {row["name"]: {key: row[key] for key in row if key != "name"} for row in others},
    }
    if job.model is not None:
        add_to_card(Path(job.model) / CARD, results)
    return results


@torch.inference_mode()
def heldout(job: EvaluateJob, store: str) -> dict[str, Any]:
    """Loss, accuracy and calibration on the labels of a store's held-out split that carry loss; none may."""
    device = torch.device(job.device)
    model = load(job.student, device, torch.float32)
    split = TokenStore.open(store).split("validation")
    sums, rows = Calibration(), max(1, LOGITS_AT_ONCE // job.student.vocabulary)
    for first in range(0, len(split), SEQUENCES_AT_ONCE):
        batch = range(first, min(first + SEQUENCES_AT_ONCE, len(split)))
        tokens, positions, learnt = map(torch.from_numpy, split.get_labelled_batch(batch))
        packed = tokens.long().to(device)
        chosen = learnt.to(device)
        hidden = model.hidden(packed[:, :-1], positions.long())[chosen]
        labels = packed[:, 1:][chosen]
        for states, wanted in zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True):
            sums.add(model.logits(states), wanted)
    if not sums.positions:
        return {"positions": 0}
    return {"positions": sums.positions, "loss": sums.mean_loss, "accuracy": sums.accuracy, "ece": sums.error}


class _Tasks:
    """The exported model before the harness; both are opened when the first task is asked."""

    def __init__(self, job: EvaluateJob) -> None:
        self._job = job
        self._opened: tuple[Any, Any] | None = None

    def score(self, task: EvaluationTask) -> dict[str, Any]:
        """One task."""
        from pdforge.evaluation.harness import Harness, open_model  # noqa: PLC0415 - only where there are tasks

        job = self._job
        if self._opened is None:
            assert job.model is not None, "a plan with tasks exports the model"
            harness = Harness(Path(job.include) if job.include else None)
            self._opened = harness, open_model(Path(job.model), device=job.device, batch=job.batch)
        harness, model = self._opened
        found = harness.score(model, task, limit=job.limit)
        return {"task": task.task, "shots": task.shots, **found._asdict()}


def _report(directory: StageDirectory, done: int, total: int, name: str) -> None:
    write_json(
        directory.progress,
        {
            "stage": "evaluate",
            "step": done,
            "of": total,
            "unit": "measurements",
            "loss": None,
            "tokens_per_second": None,
            "eta_seconds": None,
            "message": name,
            "time": time.time(),
        },
    )
