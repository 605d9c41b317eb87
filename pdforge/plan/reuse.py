"""Logit stores that serve another capture than their own.

A store is shared where a reader of it gets the numbers that its own would hold, bit by bit. So a run's identity and
result never depend on which stores lie around: only where its distributions come from does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from pdforge.layout import LOGITS, StageDirectory
from pdforge.plan.estimate import estimate
from pdforge.plan.jobs import CaptureJob, TrainJob, kept
from pdforge.plan.model import Plan, Stage
from pdforge.recipe.models import TeacherConvergence, TopPTopK


def share_stores(plans: Sequence[Plan], root: Path) -> list[Plan]:
    """The plans, each with the logit store that serves it: its own where that is done, else a whole one below `root`,
    else that of the plan among these which serves most.
    """
    held = _whole_stores(root)
    own = {stage.identity: stage for plan in plans for stage in plan.stages if stage.kind == "capture"}
    return [_sharing(plan, held, own) for plan in plans]


def serves(held: CaptureJob, wanted: CaptureJob, *, followed: bool = False) -> str:
    """Why the store of `held` gives a reader of `wanted` the same bits as its own would; empty: it does not.

    Cutting a `lossless` store is what capture does. The other codecs round, so that a cut of what they stored is not
    what capture would have kept: they serve their own truncation only. They also need the same rank table, because it
    orders the entries, and so the sums over them.

    `followed`: the reader's α follows what is recorded of each shard, so the last one must have as many samples.
    """
    same = ("teacher_identity", "tokens_identity", "precision", "from_step", "codec")
    if any(getattr(held, name) != getattr(wanted, name) for name in same):
        return ""
    if held.sequences < wanted.sequences or not set(wanted.columns) <= set(held.columns):
        return ""
    if followed and held.sequences != wanted.sequences:
        return ""
    more = f"{held.sequences:,} sequences of the same teacher and tokens"
    if held.codec == "lossless" and isinstance(held.truncation, TopPTopK) and isinstance(wanted.truncation, TopPTopK):
        (top_p, top_k), (wanted_p, wanted_k) = kept(held.truncation), kept(wanted.truncation)
        if wanted_p <= top_p and wanted_k <= top_k:
            return f"{more}, lossless, top-{top_p:g}-{top_k} includes top-{wanted_p:g}-{wanted_k}"
    if held.truncation == wanted.truncation and held.calibration == wanted.calibration:
        return f"{more}, same truncation and codec"
    return ""


def logit_store_line(plan: Plan, root: Path) -> str:
    """Where a run's distributions come from, for people; empty where none are stored."""
    captures = plan.captures
    if plan.reuses and len(captures) == 1:
        return f"reuses store {captures[0].identity} ({plan.reuses})"
    lines = [_store_line(plan, stage, root) for stage in captures]
    several = len(lines) > 1
    return "; ".join(
        f"{stage.identity} {line}" if several else line for stage, line in zip(captures, lines, strict=True)
    )


def _store_line(plan: Plan, stage: Stage, root: Path) -> str:
    if StageDirectory(root / stage.directory).done.exists():
        return f"reuses store {stage.identity} ({'captured before' if plan.reuses else 'its own, captured before'})"
    figures = plan.figures.stages[stage.key]
    size = f"about {figures.bytes:,} bytes" if figures.bytes is not None else f"at most {figures.bytes_at_most:,} bytes"
    return f"captures {figures.tokens:,} tokens, {size}"


def _sharing(plan: Plan, held: dict[str, Stage], own: dict[str, Stage]) -> Plan:
    mine, reuses, stages = plan.captures, [], plan.stages
    for stage in (each for each in plan.stages if each.kind == "capture"):
        chosen = _serving(stage, held, own, followed=_is_followed(stage, plan))
        if chosen.identity == stage.identity:
            continue
        chosen = chosen.model_copy(update={"needs": stage.needs})
        stages = [_reading(each, stage, chosen) for each in stages]
        if stage in mine:
            reuses.append(serves(_job(chosen), _job(stage)))
    if stages is plan.stages:
        return plan
    training = plan.training.job
    assert isinstance(training, TrainJob)
    figures = estimate(plan.recipe, training.vocabulary, stages)
    return plan.model_copy(update={"stages": stages, "figures": figures, "reuses": "; ".join(reuses)})


def _is_followed(stage: Stage, plan: Plan) -> bool:
    """Whether the α of a reader follows what the store of this capture says of its teacher."""
    readers = [each.job for each in plan.stages if stage.key in each.needs and isinstance(each.job, TrainJob)]
    return any(job.objective and isinstance(job.objective.alpha, TeacherConvergence) for job in readers)


def _serving(stage: Stage, held: dict[str, Stage], own: dict[str, Stage], *, followed: bool) -> Stage:
    """The capture whose store a reader of this one's reads."""
    if stage.identity in held:
        return stage
    candidates = [other for other in held.values() if serves(_job(other), _job(stage), followed=followed)]
    if not candidates:
        # The one that serves most of these plans: it serves every plan of those that it is preferred to.
        def served(other: Stage) -> tuple[int, str]:
            return sum(bool(serves(_job(other), _job(one))) for one in own.values()), other.identity

        these = (other for other in own.values() if serves(_job(other), _job(stage), followed=followed))
        candidates = [max(these, key=served)]
    return min(candidates, key=lambda other: (_job(other).sequences, kept(_job(other).truncation), other.identity))


def _reading(each: Stage, old: Stage, new: Stage) -> Stage:
    """A stage of the plan, with `new` in the place of `old`."""
    if each.key == old.key:
        return new
    if old.key not in each.needs:
        return each
    job, left, reads = each.job, _job(old).output, _job(new).output
    assert isinstance(job, TrainJob)
    also = tuple(one.model_copy(update={"logits": reads}) if one.logits == left else one for one in job.also)
    first = reads if job.logits == left else job.logits
    needs = list(dict.fromkeys(new.key if key == old.key else key for key in each.needs))
    return each.model_copy(update={"needs": needs, "job": job.model_copy(update={"logits": first, "also": also})})


def _whole_stores(root: Path) -> dict[str, Stage]:
    """The stages of whole logit stores below the root, by identity; those of another version's jobs are left alone."""
    stages = {}
    for path in sorted((root / LOGITS).glob("*")):
        directory = StageDirectory(path)
        if not directory.done.exists():
            continue
        try:
            job = CaptureJob.model_validate_json(directory.job_json.read_bytes())
        except (OSError, ValidationError):
            continue
        if Path(job.output) == directory.output:  # else the root was moved, or copied
            stages[job.identity] = Stage(
                key=f"capture:{job.identity}",
                kind="capture",
                title=job.title,
                identity=job.identity,
                directory=str(path.relative_to(root)),
                needs=[],
                processes=job.processes,
                shared=True,
                job=job,
            )
    return stages


def _job(stage: Stage) -> CaptureJob:
    assert isinstance(stage.job, CaptureJob)
    return stage.job
