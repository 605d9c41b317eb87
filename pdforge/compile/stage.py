"""Writes a stage's job directory: `job.json`, `launch.sh` and, for training, the torchtitan module `train.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pdforge.compile.templates import Name, render
from pdforge.layout import StageDirectory, write_atomically
from pdforge.plan.extension import held_steps
from pdforge.plan.jobs import Job, TrainJob, kept
from pdforge.plan.model import Stage
from pdforge.recipe.columns import SPREAD, required_columns
from pdforge.schedules import is_zero, learning_rate_phases

_ACTIVATION_CHECKPOINT = {"none": None, "selective": Name("SelectiveAC"), "full": Name("FullAC")}
_PIPELINE_SCHEDULE = {"1f1b": "1F1B", "interleaved_1f1b": "Interleaved1F1B"}
_FLIGHT_RECORDER_ENTRIES = {"cuda": 20_000, "cpu": 2_000}
"""Of torch's record of the last collectives, on each rank."""


def write_stage(stage: Stage, root: Path) -> StageDirectory:
    """Compile the stage below the storage root; compiling it again writes the same bytes."""
    directory = StageDirectory((root / stage.directory).absolute())
    job = stage.job
    write_atomically(directory.job_json, job.model_dump_json(indent=1, by_alias=True) + "\n")
    if isinstance(job, TrainJob):
        write_atomically(directory.train_module, render("train.py.j2", "python", _training_values(job, directory)))
    write_atomically(directory.launch_script, render("launch.sh.j2", "shell", _launch_values(job, stage, directory)))
    directory.launch_script.chmod(0o700)
    return directory


def _launch_values(job: Job, stage: Stage, directory: StageDirectory) -> dict[str, Any]:
    return {
        "stage_directory": directory.path,
        "python": sys.executable,
        "processes": stage.processes,
        "threads": max(1, (os.cpu_count() or 1) // stage.processes),
        "device": getattr(job, "device", "cpu"),
    }


def _live_values(job: TrainJob) -> dict[str, Any]:
    """The teacher that runs beside the student."""
    assert job.teacher is not None
    assert job.truncation is not None
    return {
        "source_class": Name(type(job.teacher).__name__),
        "source": job.teacher.model_dump(mode="json"),
        "truncation_class": Name(type(job.truncation).__name__),
        "truncation": job.truncation.model_dump(mode="json"),
        "precision": job.teacher_precision,
    }


def _training_values(job: TrainJob, directory: StageDirectory) -> dict[str, Any]:
    training, architecture = job.training, job.architecture
    objective = job.objective
    distils = objective is not None and not is_zero(objective.alpha)
    warmup, decay, floor = learning_rate_phases(training.learning_rate_schedule, job.steps)
    shard = training.parallelism.data_shard
    live = _live_values(job) if distils and job.teacher else None
    extra = {"CapturingLoss": job.online, "DistillationLoss": distils, "LiveTeacher": live}
    titan = [
        "DistillTrainer",
        "HeldOutLoss",
        "PackedTokens",
        "StageCheckpoints",
        "StageMetrics",
        "StoreLoader",
        "decoder",
    ]
    return {
        **{name: getattr(job, name) for name in TrainJob.model_fields},
        "titan_names": Name(*sorted([*titan, *(name for name, used in extra.items() if used)])),
        "live": live,
        "loss_names": Name(
            "ChunkedLossWrapper", *([] if distils else ["CrossEntropyLoss"] if job.online is None else [])
        ),
        "distils": distils,
        "kept": kept(job.truncation) if job.truncation else None,
        "further": tuple((each.logits, *kept(each.truncation)) for each in job.also),
        "weights": (job.weight, *(each.weight for each in job.also)),
        "spread": objective is not None and SPREAD in required_columns(objective),
        "optimizer": training.optimizer,
        "activation_checkpoint": _ACTIVATION_CHECKPOINT[training.activation_checkpointing],
        "dump_folder": str(directory.path),
        "checkpoint_folder": str(directory.checkpoints.relative_to(directory.path)),
        "kv_heads": architecture.kv_heads or architecture.heads,
        "head_dim": architecture.head_dim or architecture.hidden // architecture.heads,
        "warmup_steps": warmup,
        "decay_ratio": decay / job.steps,
        "floor": floor,
        "samples": job.steps * training.batch.global_,
        "tokens_per_step": training.batch.global_ * job.sequence_length,
        "extended": str(StageDirectory(Path(job.extends.stage)).checkpoint(job.extends.step)) if job.extends else None,
        "hold": held_steps(job),
        "data_shard": -1 if shard == "auto" else shard,
        "pipeline_schedule": _PIPELINE_SCHEDULE[training.parallelism.pipeline_schedule],
        "pipeline_microbatch": training.parallelism.pipeline_microbatch,
        "trace_buffer": _FLIGHT_RECORDER_ENTRIES[job.device],
    }
