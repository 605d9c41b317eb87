"""Sizes and costs of a plan, from arithmetic alone. What cannot be known before a run is None, never a guess."""

from __future__ import annotations

from collections.abc import Sequence

from pdforge.plan.extension import kept_steps
from pdforge.plan.jobs import (
    CaptureJob,
    EvaluateJob,
    ExportJob,
    HuggingFaceSource,
    Job,
    ModelSource,
    TokenizeJob,
    TrainJob,
)
from pdforge.plan.jobs import kept as kept_of
from pdforge.plan.model import Figures, ModelFigures, Stage, StageFigures
from pdforge.plan.shapes import parameters_of
from pdforge.recipe.models import Architecture, Recipe, TopPTopK, Truncation
from pdforge.recipe.sizes import parameter_count

BYTES_PER_ENTRY = {
    "rank-gap-63": 1.5,
    "rank-gap-127": 1.6,
    "context-40": 1.3,
    "context-63": 1.4,
    "rank-gap-float16": 2.4,
    "lossless": 4.0,
    "sampled": 2.0,
}
"""Of the logit store's codecs, a kept entry, ids included (docs/store.md). `sampled`: our guess for few draws."""

KEPT_ENTRIES = {10: 6.6, 20: 11.3, 50: 22.3, 100: 37.0}
"""Mean kept entries of top-0.95-k by k, for the vocabulary below (arXiv 2410.16215, section 3.2 and Table 8)."""
KEPT_ENTRIES_VOCABULARY = 151_552

_WEIGHT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def estimate(recipe: Recipe, vocabulary: int, stages: Sequence[Stage]) -> Figures:
    """The figures of a plan's stages."""
    length = recipe.data.sequence_length
    student = next(stage.job for stage in stages if stage.kind == "train" and isinstance(stage.job, TrainJob))
    stored = (stage.job for stage in stages if isinstance(stage.job, CaptureJob))
    capture = next((job for job in stored if job.output == student.logits), None)
    teacher = capture.teacher if capture else student.teacher
    return Figures.model_construct(
        student=ModelFigures.model_construct(
            parameters=parameter_count(recipe.student.architecture, vocabulary).total,
            flops_per_token=flops_per_token(recipe.student.architecture, vocabulary, length),
        ),
        teacher=_teacher_figures(teacher) if teacher else None,
        kept_entries=kept_entries(capture.truncation, vocabulary) if capture else None,
        stages={stage.key: _stage_figures(stage, vocabulary, length) for stage in stages},
    )


def _teacher_figures(teacher: ModelSource | HuggingFaceSource) -> ModelFigures:
    shape = teacher.architecture
    return ModelFigures.model_construct(
        parameters=parameters_of(teacher),
        flops_per_token=flops_per_token(shape, teacher.vocabulary, teacher.sequence_length) if shape else None,
    )


def flops_per_token(architecture: Architecture, vocabulary: int, sequence_length: int) -> int:
    """Of training, forward and backward: 6 a parameter that multiplies, and attention over the whole sequence.

    torchtitan's own count (`get_dense_model_nparams_and_flops`), so that plan and trainer report the same unit.
    """
    count = parameter_count(architecture, vocabulary)
    multiplying = count.total if architecture.tied_embeddings else count.total - count.embedding
    head = architecture.head_dim or architecture.hidden // architecture.heads
    attention = architecture.layers * architecture.heads * 2 * head * sequence_length
    return 6 * (multiplying + attention)


def model_flops_per_token(job: Job) -> float | None:
    """Of the models that a stage runs; None: unknown, or it runs none."""
    match job:
        case TrainJob():
            own: float = flops_per_token(job.architecture, job.vocabulary, job.sequence_length)
            beside = _forward(job.teacher) if job.teacher else 0.0
            return None if beside is None else own + beside
        case CaptureJob():
            return _forward(job.teacher) if job.runs_teacher else None
    return None


def _forward(source: ModelSource | HuggingFaceSource) -> float | None:
    """Of a forward pass alone, a third of training's; unknown where the shape is."""
    shape = source.architecture
    return flops_per_token(shape, source.vocabulary, source.sequence_length) / 3 if shape else None


def checkpoint_bytes(architecture: Architecture, vocabulary: int) -> int:
    """Of a training: weights and AdamW's two moments, float32. torchtitan saves a tied weight under both of its names,
    and its moments once."""
    twice = architecture.hidden * vocabulary if architecture.tied_embeddings else 0
    return 12 * parameter_count(architecture, vocabulary).total + 4 * twice


def kept_entries(truncation: Truncation, vocabulary: int) -> float | None:
    """Mean kept entries of a position where the paper measured them (its teacher's vocabulary, p = 0.95); else None."""
    if not isinstance(truncation, TopPTopK):
        return None
    if vocabulary != KEPT_ENTRIES_VOCABULARY or truncation.top_p != 0.95:
        return None
    return KEPT_ENTRIES.get(truncation.top_k)


def _stage_figures(stage: Stage, vocabulary: int, length: int) -> StageFigures:
    match stage.job:
        case TokenizeJob() as job:
            tokens = (job.train_sequences + job.validation_sequences) * length
            return StageFigures.model_construct(tokens=tokens, bytes=tokens * (2 if vocabulary <= 1 << 16 else 4))
        case CaptureJob() as job:
            tokens = job.sequences * length
            most = min(kept_of(job.truncation)[1], vocabulary) * BYTES_PER_ENTRY[job.codec]
            columns, kept = 4 * len(job.columns), kept_entries(job.truncation, vocabulary)
            flops = model_flops_per_token(job) if job.runs_teacher else 0.0
            return StageFigures.model_construct(
                tokens=tokens,
                flops=None if flops is None else tokens * flops,
                bytes=None if kept is None else round(tokens * (kept * BYTES_PER_ENTRY[job.codec] + columns)),
                bytes_at_most=round(tokens * (most + columns)),
            )
        case ExportJob() as job:
            weights = parameter_count(job.student.architecture, vocabulary).total
            return StageFigures.model_construct(bytes=weights * _WEIGHT_BYTES[job.dtype])
        case EvaluateJob():
            return StageFigures.model_construct(bytes=0)
        case TrainJob() as job:
            tokens = job.steps * job.training.batch.global_ * length
            flops = model_flops_per_token(job)
            return StageFigures.model_construct(
                steps=job.steps,
                tokens=tokens,
                flops=None if flops is None else tokens * flops,
                bytes=checkpoint_bytes(job.architecture, vocabulary) * len(kept_steps(job)),
            )
