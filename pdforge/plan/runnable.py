"""What is refused before anything starts: a machine or a version that cannot carry out a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pdforge.errors import UsageError
from pdforge.plan.jobs import CaptureJob, HuggingFaceSource, Job, TrainJob
from pdforge.plan.model import Plan


def require_runnable(plans: Iterable[Plan]) -> None:
    """Refuse, before anything starts, plans that this machine or this version cannot carry out.

    Raises:
        EnvironmentFault: as `require_training_packages` and `require_huggingface_packages`.
        UsageError: as `require_supported`.
    """
    from pdforge.environment import require_huggingface_packages, require_training_packages  # noqa: PLC0415 - not to plan

    plans = list(plans)
    require_training_packages()
    sources = [source for plan in plans for stage in plan.stages if (source := _huggingface(stage.job))]
    gguf = any(source.gguf_file for source in sources) or any(map(_tokenizer_is_gguf, plans))
    if sources or gguf or any(plan.stage("export") for plan in plans):
        require_huggingface_packages(gguf=gguf)
    require_supported(plans)


def require_supported(plans: Iterable[Plan]) -> None:
    """Refuse plans that this version cannot carry out on any machine.

    Raises:
        UsageError: a plan asks for what this version cannot do.
    """
    for plan in plans:
        if reason := unsupported(plan):
            raise UsageError(
                f"{plan.label}: {reason}",
                remedy="leave that out of the recipe, or of this run: --set FIELD=VALUE",
            )


def unsupported(plan: Plan) -> str:
    """What this version cannot do of a plan that is sound in itself; empty: nothing."""
    lacking = list(dict.fromkeys(_lacking(plan)))
    return f"this version cannot {'; nor '.join(lacking)}" if lacking else ""


def _huggingface(job: Job) -> HuggingFaceSource | None:
    teacher = job.teacher if isinstance(job, CaptureJob | TrainJob) else None
    return teacher if isinstance(teacher, HuggingFaceSource) else None


def _tokenizer_is_gguf(plan: Plan) -> bool:
    return Path(getattr(plan.recipe.data.tokenizer, "path", "")).suffix == ".gguf"


def _lacking(plan: Plan) -> Iterator[str]:
    if plan.recipe.evaluate is not None:
        yield "evaluate the student (evaluate)"
