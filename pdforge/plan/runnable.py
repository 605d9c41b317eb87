"""What is refused before anything starts: a machine or a version that cannot carry out a plan."""

from __future__ import annotations

from collections.abc import Iterable

from pdforge.environment import require_training_packages
from pdforge.errors import UsageError
from pdforge.plan.jobs import CaptureJob, HuggingFaceSource
from pdforge.plan.model import Plan


def require_runnable(plans: Iterable[Plan]) -> None:
    """Refuse, before anything starts, plans that this machine or this version cannot carry out.

    Raises:
        EnvironmentFault: as `require_training_packages`.
        UsageError: a stage reads a teacher in a format that capture cannot load.
    """
    require_training_packages()
    for plan in plans:
        if reason := unsupported(plan):
            raise UsageError(
                f"{plan.label}: {reason}",
                remedy="teachers can be `kind: pretrain` (trained here) or `kind: torchtitan` (a checkpoint)",
            )


def unsupported(plan: Plan) -> str:
    """What this version cannot do of a plan that is sound in itself; empty: nothing."""
    capture = plan.stage("capture")
    if capture and isinstance(capture.job, CaptureJob) and isinstance(capture.job.teacher, HuggingFaceSource):
        return f"this version cannot capture from a Hugging Face model ({capture.job.teacher.path})"
    return ""
