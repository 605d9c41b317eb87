"""Computes the page of a plan: the one place where what is shown is worked out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pdforge.layout import StageDirectory
from pdforge.plan.batch import split_batch
from pdforge.plan.curves import curves
from pdforge.plan.duration import Duration, estimate_duration, requeues
from pdforge.plan.estimate import flops_per_token
from pdforge.plan.extension import extension_line
from pdforge.plan.jobs import CaptureJob, HuggingFaceSource, ModelSource, TrainJob
from pdforge.plan.measured import read_measured, store_of
from pdforge.plan.memory import Memory, capture_memory, training_memory
from pdforge.plan.model import Plan, Stage, StageFigures, merged_stages
from pdforge.plan.page import Batch, Finding, Model, Place, PlanPage, Run, Step, Total
from pdforge.plan.profile import Profile
from pdforge.plan.reuse import logit_store_line
from pdforge.plan.science import science_of
from pdforge.plan.shapes import shape_of
from pdforge.plan.storage import StoredBytes, StoreFigures, checkpoint_figures, store_figures
from pdforge.plan.wall_clock import wall_clock
from pdforge.recipe.sizes import parameter_count

if TYPE_CHECKING:
    from pdforge.diagnostics import Diagnostic
    from pdforge.plan.measurement import Measured


def make_page(
    plans: Sequence[Plan],
    root: Path,
    *,
    findings: Iterable[Finding] = (),
    unread: Iterable[str] = (),
    measured: Sequence[Measured] | None = None,
) -> PlanPage:
    """The page of the plans of one recipe.

    Args:
        plans: on one profile.
        root: the storage root.
        findings: of the rules, for the page's end.
        unread: why identities are provisional.
        measured: what finished stages measured; default: what lies below the root.
    """
    first = plans[0]
    known = read_measured(root) if measured is None else measured
    stages = merged_stages(plans)
    numbers = {stage.key: number for number, stage in enumerate(stages, start=1)}
    context = _Context(plans, root, first.profile, known, numbers)
    steps = tuple(context.step(stage) for stage in stages)
    return PlanPage(
        name=first.name,
        description=first.recipe.description,
        root=str(root),
        place=_place(first.profile, root),
        runs=tuple(
            Run(
                plan.label,
                plan.hash,
                plan.directory,
                logit_store_line(plan, root),
                extension_line(plan),
                *science_of(plan.recipe),
            )
            for plan in plans
        ),
        stages=steps,
        models=_models(plans),
        total=_total(steps, first.profile),
        findings=tuple(findings),
        unread=tuple(unread),
    )


def findings_of(diagnostics: Iterable[Diagnostic]) -> list[Finding]:
    """Diagnostics with the evidence that their codes stand for."""
    from pdforge.recipe.rules import TOPICS  # noqa: PLC0415 - the texts of all rules: only where there is a finding

    return [
        Finding(
            each.code,
            each.severity.value,
            str(each.place),
            each.message,
            each.help,
            TOPICS[each.code].explanation if each.code in TOPICS else "",
        )
        for each in diagnostics
    ]


class _Context:
    """What all stages of a page are computed from."""

    def __init__(
        self,
        plans: Sequence[Plan],
        root: Path,
        profile: Profile,
        measured: Sequence[Measured],
        numbers: dict[str, int],
    ) -> None:
        self.root, self.profile, self.measured, self.numbers = root, profile, measured, numbers
        self.figures = {key: value for plan in plans for key, value in plan.figures.stages.items()}
        self.train_tokens = max(1, plans[0].recipe.data.train_tokens)
        self.stores: dict[str, StoreFigures] = {}
        self.token_width = 0
        for plan in plans:
            for stage in plan.stages:
                if isinstance(stage.job, CaptureJob):
                    self.stores[stage.job.output] = self.store(stage, stage.job)
                if isinstance(stage.job, TrainJob):
                    self.token_width = 2 if stage.job.vocabulary <= 1 << 16 else 4

    def store(self, stage: Stage, job: CaptureJob) -> StoreFigures:
        like = store_of(job)
        found = [each for each in self.measured if each.store == like and each.entries and each.bytes_an_entry]
        known = None
        if found and found[-1].entries and found[-1].bytes_an_entry:
            known = StoredBytes(found[-1].entries, found[-1].bytes_an_entry, f"measured: store {found[-1].identity}")
        return store_figures(job, StageDirectory(self.root / stage.directory), known)

    def step(self, stage: Stage) -> Step:
        figures, job, profile = self.figures.get(stage.key, StageFigures.model_construct()), stage.job, self.profile
        own = _own(job, figures)
        duration = estimate_duration(stage, own.tokens, profile, self.measured)
        store = self.stores[job.output] if isinstance(job, CaptureJob) else None
        checkpoints = checkpoint_figures(job) if isinstance(job, TrainJob) else None
        size = store.bytes if store else checkpoints.kept_bytes if checkpoints else figures.bytes
        processes = profile.at_once(stage.kind, stage.processes)
        hours = duration.seconds * processes / 3600 if duration else None
        return Step(
            number=self.numbers[stage.key],
            key=stage.key,
            kind=stage.kind,
            title=stage.title,
            directory=stage.directory,
            needs=tuple(self.numbers[key] for key in stage.needs),
            processes=processes,
            done=StageDirectory(self.root / stage.directory).done.exists(),
            steps=figures.steps,
            tokens=figures.tokens,
            epochs=figures.tokens / self.train_tokens if isinstance(job, TrainJob) and figures.tokens else None,
            flops=own.flops,
            bytes=size,
            bytes_at_most=store.bytes_at_most if store else None,
            duration=duration,
            requeues=requeues(duration, profile) if duration else None,
            cost=hours * profile.price if hours is not None and profile.price is not None else None,
            read_rate=self._read_rate(job, own.tokens, duration),
            write_rate=_write_rate(checkpoints.written_bytes if checkpoints else size, duration),
            memory=_memory(stage),
            batch=_batch(job) if isinstance(job, TrainJob) else None,
            curves=curves(job) if isinstance(job, TrainJob) else (),
            checkpoints=checkpoints,
            store=store,
        )

    def _read_rate(self, job: object, tokens: int | None, duration: Duration | None) -> float | None:
        if not isinstance(job, TrainJob | CaptureJob) or not tokens or not duration or not duration.seconds:
            return None
        read = float(tokens * self.token_width)
        for name in job.stores if isinstance(job, TrainJob) else ():
            store = self.stores.get(name)
            if store is None or store.bytes is None:
                return None
            read += store.bytes / store.positions * tokens
        return read / duration.seconds


def _own(job: object, figures: StageFigures) -> StageFigures:
    """What the stage itself goes through: without what a training that goes on from another run has from there."""
    if not isinstance(job, TrainJob) or figures.tokens is None:
        return figures
    tokens = figures.tokens // job.steps * job.own_steps
    flops = None if figures.flops is None else figures.flops * tokens / figures.tokens
    return figures.model_copy(update={"tokens": tokens, "flops": flops})


def _write_rate(size: int | None, duration: Duration | None) -> float | None:
    return size / duration.seconds if size is not None and duration and duration.seconds else None


def _memory(stage: Stage) -> Memory | None:
    if isinstance(stage.job, TrainJob):
        return training_memory(stage.job) if stage.job.device == "cuda" else None
    if isinstance(stage.job, CaptureJob) and stage.job.runs_teacher:
        return capture_memory(stage.job) if stage.job.device == "cuda" else None
    return None


def _batch(job: TrainJob) -> Batch:
    split = split_batch(job.training, job.processes, place=job.place)
    batch = job.training.batch
    return Batch(batch.global_, job.sequence_length, batch.micro, split.data_parallel, split.accumulation)


def _place(profile: Profile, root: Path) -> Place:
    return Place(
        profile=profile.name,
        executor=profile.executor,
        device=profile.device,
        nodes=profile.nodes,
        processes=profile.processes,
        gpu=profile.gpu,
        gpu_memory=profile.memory_of_a_gpu,
        peak_flops=profile.flops_of_a_gpu,
        walltime=profile.walltime if profile.executor == "slurm" else None,
        price=profile.price,
        currency=profile.currency,
        disk=profile.disk or (_free(root) if profile.executor == "local" else None),
        disk_read=profile.disk_read,
        disk_write=profile.disk_write,
        runs_at_once=profile.runs_at_once,
    )


def _free(root: Path) -> int:
    there = next(path for path in (root, *root.absolute().parents) if path.exists())
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize


def _models(plans: Sequence[Plan]) -> tuple[Model, ...]:
    rows: dict[Model, None] = {}
    for plan in plans:
        trained = {stage.key: stage for stage in plan.stages if stage.kind == "pretrain-teacher"}
        for stage in plan.stages:
            source = stage.job.teacher if isinstance(stage.job, CaptureJob | TrainJob) else None
            if isinstance(source, HuggingFaceSource):
                rows[_published(source)] = None
            elif source is not None:
                by = next((trained[key] for key in stage.needs if key in trained), None)
                name = by.title.partition(" ")[2] if by else "teacher"
                rows[_model(name, name, source)] = None
    for plan in plans:
        for stage in plan.stages:
            if stage.kind == "train" and isinstance(stage.job, TrainJob):
                rows[_model("student", plan.label, stage.job)] = None
    return tuple(rows)


def _published(source: HuggingFaceSource) -> Model:
    """A model from outside; of a known one the biases are counted too."""
    if source.architecture is None:
        known = "unknown" if Path(source.path).is_dir() else "not bundled"
        return Model("teacher", source.path, None, None, None, None, None, known)
    shape = shape_of(source.path, source.gguf_file)
    if shape is None:
        return _model("teacher", source.path, source)
    return _model("teacher", source.path, source, shape.source, rows=shape.vocabulary, bias=shape.bias)


def _model(
    role: str,
    name: str,
    of: TrainJob | ModelSource | HuggingFaceSource,
    source: str = "the recipe",
    *,
    rows: int | None = None,
    bias: int = 0,
) -> Model:
    """`rows` of its embedding, where these are not as many as the vocabulary; `bias`: parameters not counted yet."""
    shape = of.architecture
    assert shape is not None, "a shape that is unknown has no figures"
    count = parameter_count(shape, rows or of.vocabulary)
    flops = flops_per_token(shape, of.vocabulary, of.sequence_length)
    lookup = 0 if shape.tied_embeddings else count.embedding
    total = count.total + bias
    return Model(role, name, total, count.embedding, total - lookup, flops, flops / 3, source)


def _total(steps: Sequence[Step], profile: Profile) -> Total:
    open_steps = [step for step in steps if not step.done]
    timed = [step for step in open_steps if step.runs_a_model or step.duration]
    known = all(step.duration for step in timed)
    sizes = [step.bytes if step.bytes is not None else step.bytes_at_most for step in open_steps]
    costs = [step.cost for step in timed]
    return Total(
        seconds=wall_clock(steps, profile, "seconds") if known else None,
        low=wall_clock(steps, profile, "low") if known else None,
        high=wall_clock(steps, profile, "high") if known else None,
        process_hours=sum(step.process_hours or 0.0 for step in timed) if known else None,
        cost=sum(cost or 0.0 for cost in costs) if known and profile.price is not None else None,
        bytes=None if None in sizes else sum(size for size in sizes if size is not None),
    )
