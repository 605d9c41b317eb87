"""What is refused before anything starts: a machine that cannot carry out a plan."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from pdforge.errors import EnvironmentFault, UsageError
from pdforge.layout import StageDirectory
from pdforge.plan.jobs import CaptureJob, EvaluateJob, HuggingFaceSource, Job, TrainJob
from pdforge.plan.model import Plan


def require_runnable(plans: Iterable[Plan]) -> None:
    """Refuse, before anything starts, plans that this machine cannot carry out.

    Raises:
        EnvironmentFault: as `require_training_packages`, `require_huggingface_packages` and `require_tasks`.
        UsageError: as `require_tasks`.
    """
    from pdforge.environment import require_huggingface_packages, require_training_packages  # noqa: PLC0415 - not to plan

    plans = list(plans)
    require_training_packages()
    sources = [source for plan in plans for stage in plan.stages if (source := _huggingface(stage.job))]
    gguf = any(source.gguf_file for source in sources) or any(map(_tokenizer_is_gguf, plans))
    if sources or gguf or any(plan.stage("export") for plan in plans):
        require_huggingface_packages(gguf=gguf)
    require_tasks(plans)


def require_tasks(plans: Iterable[Plan]) -> None:
    """Refuse tasks that cannot be evaluated, as far as it is known before the student is trained.

    Raises:
        EnvironmentFault: a package is missing.
        UsageError: there is no such task, it cannot be loaded, or its data can be had neither from the hub nor from
            its cache.
    """
    from pdforge.environment import require_evaluation_packages  # noqa: PLC0415 - as above

    jobs = [stage.job for plan in plans if (stage := plan.stage("evaluate")) and isinstance(stage.job, EvaluateJob)]
    jobs = [job for job in jobs if job.tasks and not StageDirectory(Path(job.output).parent).done.exists()]
    if not jobs:
        return
    require_evaluation_packages()
    # by another process: the harness imports torch, and takes its time
    done = subprocess.run(
        [sys.executable, "-m", "pdforge.evaluation.check", _asked(jobs)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EnvironmentFault(
            f"the evaluation harness does not start: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}",
            remedy="pip install 'pdforge[eval]'",
        )
    if problems := json.loads(done.stdout.splitlines()[-1]):
        remedies = dict.fromkeys(each["remedy"] for each in problems)
        raise UsageError("\n".join(each["message"] for each in problems), remedy="\n  ".join(remedies))


def _asked(jobs: Iterable[EvaluateJob]) -> str:
    """What the jobs evaluate, each task once, by the folder of task files."""
    tasks: dict[str | None, dict[str, dict[str, object]]] = {}
    for job in jobs:
        for task in job.tasks:
            tasks.setdefault(job.include, {})[task.model_dump_json()] = task.model_dump(mode="json")
    return json.dumps([{"include": include, "tasks": list(found.values())} for include, found in tasks.items()])


def _huggingface(job: Job) -> HuggingFaceSource | None:
    teacher = job.teacher if isinstance(job, CaptureJob | TrainJob) else None
    return teacher if isinstance(teacher, HuggingFaceSource) else None


def _tokenizer_is_gguf(plan: Plan) -> bool:
    return Path(getattr(plan.recipe.data.tokenizer, "path", "")).suffix == ".gguf"
