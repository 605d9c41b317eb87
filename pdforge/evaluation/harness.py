"""lm-eval as pdforge uses it: finding tasks, loading their data, one task at a time, and what counts of its results."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pdforge.errors import EnvironmentFault, PdforgeError, StageFailed, UsageError
from pdforge.recipe.models import EvaluationTask
from pdforge.text import closest

OWN_TASKS = Path(__file__).parent / "tasks"
"""Tasks that the harness lacks."""

_PREFERRED = ("acc", "exact_match", "acc_norm")
_SHARES = {*_PREFERRED, "acc_bytes", "acc_mutual_info", "em", "f1", "mc1", "mc2"}


class Score(NamedTuple):
    """The result of one task."""

    metric: str
    """As the harness calls it, with the filter of the answers: `acc,none`."""
    value: float
    stderr: float | None
    """Standard error of the mean over examples."""
    is_share: bool
    """Of 1: reports show it in percent."""
    samples: int
    metrics: dict[str, float]
    """Everything that the task measures."""


class DataSet(NamedTuple):
    """What the library `datasets` loads: a hub id, or a loader of files, and the configuration."""

    path: str
    configuration: str | None


class Harness:
    """The tasks of the harness, of pdforge, and of a folder of one's own; of two with one name the later counts."""

    def __init__(self, include: Path | None = None) -> None:
        self._folder = include or OWN_TASKS
        self._include = [str(OWN_TASKS), *([str(include)] if include else [])]
        # the harness's own thousands of files take many seconds to list: only where a task needs it
        self._manager = library("lm_eval.tasks").TaskManager(include_path=self._include, include_defaults=False)

    def find(self, name: str) -> Any:
        """The harness's entry of a task or group.

        Raises:
            UsageError: there is none, or it is neither.
        """
        if not self._knows(name):
            self._list_all()
        entry = self._manager.task_index.get(name)
        if entry is None:
            close = closest(name, self._manager.task_index)
            raise UsageError(
                f"evaluate.tasks: there is no task {name!r}",
                remedy=(f"did you mean {close}? " if close else "") + "`lm-eval ls tasks` lists those of the harness; "
                "`evaluate.include` names a folder with your own",
            )
        if entry.kind.name == "TAG":
            raise UsageError(
                f"evaluate.tasks: {name!r} stands for {len(entry.tags)} tasks that have no result together",
                remedy=f"list those that you want: {', '.join(sorted(entry.tags)[:5])}, …",
            )
        if entry.kind.name == "GROUP" and not entry.cfg.get("aggregate_metric_list"):
            raise UsageError(
                f"evaluate.tasks: {name!r} is a group of tasks that has no result as a whole",
                remedy=f"list those of its tasks that you want: {', '.join(_members(entry.cfg))}",
            )
        return entry

    def data_sets(self, name: str) -> set[DataSet]:
        """What the task, or all tasks of the group, read; none of one that makes its data itself.

        Raises:
            UsageError: as `find`.
        """
        return {
            DataSet(str(config["dataset_path"]), config.get("dataset_name"))
            for config in self._tasks_of(self.find(name))
            if config.get("dataset_path")
        }

    def load(self, task: EvaluationTask) -> list[Any]:
        """The task or group with its data, for `lm_eval.simple_evaluate`.

        Raises:
            UsageError: as `find`; it does not measure what is asked, or has too few solved examples.
            EnvironmentFault: its data cannot be read.
        """
        self.find(task.task)
        try:
            # paths in task files count from their folder
            with contextlib.chdir(self._folder):
                loaded = self._manager.load([task.task])
        # data sets raise whatever their loaders, the hub's client or a task's own code meet
        except Exception as error:
            raise _unreadable(task.task, error) from error
        for name, one in loaded["tasks"].items():
            _require_metric(task, name, one)
            _require_examples(task, name, one)
        return [loaded["groups"][task.task]] if task.task in loaded["groups"] else list(loaded["tasks"].values())

    def score(self, model: Any, task: EvaluationTask, *, limit: int | None) -> Score:
        """Evaluate a model of the harness on one task.

        Raises:
            UsageError, EnvironmentFault: as `load`.
            StageFailed: an example does not have what the task's templates take from it.
        """
        loaded = self.load(task)
        broken = (ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError)
        try:
            found = library("lm_eval").simple_evaluate(
                model=model,
                tasks=loaded,
                num_fewshot=task.shots,
                limit=limit,
                log_samples=False,
                task_manager=self._manager,
            )
        except (*broken, library("jinja2").TemplateError) as error:
            raise StageFailed(
                f"the task {task.task!r} does not run: {_first_line(error)}",
                remedy="check its file and its data; the log has the whole story",
            ) from error
        return score_of(task, found)

    @cache  # noqa: B019 - a process has one or two harnesses
    def _list_all(self) -> None:
        self._manager = library("lm_eval.tasks").TaskManager(include_path=self._include)

    def _knows(self, name: str) -> bool:
        """Whether the task, and all tasks of a group, are among those listed so far."""
        entry = self._manager.task_index.get(name)
        return entry is not None and all(map(self._knows, _members(entry.cfg or {})))

    def _tasks_of(self, entry: Any) -> Iterator[Mapping[str, Any]]:
        """Configurations of a task, or of all tasks of a group; a group may name them by a tag that they share."""
        members = sorted(entry.tags) if entry.kind.name == "TAG" else _members(entry.cfg or {})
        if not members and entry.cfg:
            yield entry.cfg
        for member in members:
            yield from self._tasks_of(self._manager.task_index[member])


def score_of(task: EvaluationTask, found: dict[str, Any]) -> Score:
    """What counts of that which the harness returns for one task.

    Raises:
        UsageError: it measures nothing that is a number, or not what is asked.
    """
    row = found["results"].get(task.task) or next(iter(found["results"].values()))
    metrics = {
        key: float(value)
        for key, value in row.items()
        if isinstance(value, int | float) and "_stderr" not in key and "," in key
    }
    wanted = (task.metric,) if task.metric else _PREFERRED
    named = [key for name in wanted for key in metrics if name in (key, key.partition(",")[0])]
    if not metrics or (task.metric and not named):
        raise _unmeasured(task, task.task, sorted(metrics))
    metric = (named or list(metrics))[0]
    name, _, answers = metric.partition(",")
    stderr = row.get(f"{name}_stderr,{answers}")
    return Score(
        metric=metric,
        value=metrics[metric],
        stderr=float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None,
        is_share=name in _SHARES,
        samples=sum(count["effective"] for count in found["n-samples"].values()),
        metrics=metrics,
    )


def open_model(folder: Path, *, device: str, batch: int) -> Any:
    """An exported model for the harness: in its own dtype on a GPU, in float32 on a processor.

    Every text that it is asked begins with the token that every document of its training began with.
    """
    tokenizer = library("transformers").AutoTokenizer.from_pretrained(folder)
    begins = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = library("tokenizers.processors").TemplateProcessing(
        single=[begins, "$A"], special_tokens=[(begins, tokenizer.bos_token_id)]
    )
    return library("lm_eval.models.huggingface").HFLM(
        pretrained=str(folder),
        tokenizer=tokenizer,
        add_bos_token=True,
        device=device,
        dtype="float32" if device == "cpu" else "auto",
        batch_size=batch,
    )


def library(name: str) -> Any:
    """A module of the harness; raises EnvironmentFault where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentFault(f"cannot import {name}: {error}", remedy="pip install 'pdforge[eval]'") from error


def _members(config: Mapping[str, Any]) -> list[str]:
    """Names of the tasks and groups in a group; none of a task."""
    listed = config.get("task")
    if not isinstance(listed, list):
        return []
    return [each if isinstance(each, str) else str(each.get("task") or each.get("group")) for each in listed]


def _require_metric(task: EvaluationTask, name: str, loaded: Any) -> None:
    measured = list(loaded.aggregation())
    if not measured or (task.metric and task.metric.partition(",")[0] not in measured):
        raise _unmeasured(task, name, measured)


def _require_examples(task: EvaluationTask, name: str, loaded: Any) -> None:
    """Refuse more solved examples than there are."""
    if not task.shots:
        return
    if loaded.config.num_fewshot == 0:
        raise UsageError(
            f"evaluate.tasks: {name!r} is a task without solved examples, and {task.shots} are asked for",
            remedy="leave `shots` out",
        )
    there = len(list(loaded.fewshot_docs()))
    if there < task.shots:
        raise UsageError(
            f"evaluate.tasks: {task.shots} solved examples of {name!r} are asked for, and there are {there}",
            remedy=f"set `shots` to {there} or less",
        )


def _unmeasured(task: EvaluationTask, name: str, measured: list[str]) -> PdforgeError:
    if not measured:
        return UsageError(
            f"evaluate.tasks: the task {name!r} measures nothing", remedy="give it a `metric_list`, or leave it out"
        )
    return UsageError(
        f"evaluate.tasks: {name!r} does not measure {task.metric!r}", remedy=f"it measures {', '.join(measured)}"
    )


def _unreadable(name: str, error: BaseException) -> EnvironmentFault:
    """A task whose data are not there, or whose file is none."""
    return EnvironmentFault(
        f"evaluate.tasks: the task {name!r} cannot be loaded: {_first_line(error)}",
        remedy="where its data set comes from the Hugging Face hub: run where the hub can be reached, or where its "
        "cache ($HF_HOME) holds the data set; else check the task's file",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
