"""`finetune` on a real, tiny student: where it starts, what it learns, and that it resumes with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pdforge.layout import StageDirectory
from pdforge.plan.jobs import ExportJob, ModelSource
from pdforge.stages import export
from pdforge.stages.capture import load
from pdforge.stages.entry import read_job
from pdforge.titan.huggingface import huggingface_weights
from tests.stages.conftest import TinyRun, results, rows, steps, torchrun

pytestmark = pytest.mark.slow

COMMON = ("--module", "train", "--config", "config")


def test_results_and_metrics(full: TinyRun) -> None:
    stage = full.stage("pd", "finetune")
    logged = rows(stage)
    assert [row["step"] for row in steps(logged)] == list(range(1, 12))
    assert [row["step"] for row in logged if "heldout_loss" in row] == [4, 8, 11]
    assert results(stage)["tokens"] == 11 * 16 * 64
    assert results(stage)["heldout_loss"] == logged[-1]["heldout_loss"]


def test_it_starts_from_the_trained_student(full: TinyRun, tmp_path: Path) -> None:
    """Before its first step it has the held-out loss that training ended with."""
    seeded = ("--checkpoint.create_seed_checkpoint", "--dump_folder", tmp_path)
    source = read_job(full.stage("pd", "finetune"))
    assert source.kind == "finetune"
    trained = read_job(full.stage("pd", "export"))
    assert isinstance(trained, ExportJob)
    student = full.stage("pd", "train")
    model = ModelSource(
        architecture=source.architecture,
        vocabulary=source.vocabulary,
        sequence_length=source.sequence_length,
        checkpoint=str(student.checkpoints),
        step=19,
    )
    torchrun(1, "pdforge.titan.train", *COMMON, *seeded, cwd=full.stage("pd", "finetune").job)
    begins = model.model_copy(update={"checkpoint": str(StageDirectory(tmp_path).checkpoints), "step": 0})
    a, b = (load(each, torch.device("cpu"), torch.float32).weights() for each in (model, begins))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_export_is_the_fine_tuned_student(full: TinyRun) -> None:
    job = read_job(full.stage("pd", "export"))
    assert isinstance(job, ExportJob)
    assert job.student.checkpoint == str(full.stage("pd", "finetune").checkpoints)
    weights = load_file(full.stage("pd", "export").output / export.FOLDER / "model.safetensors")
    model = load(job.student, torch.device("cpu"), torch.float32)
    assert all(torch.equal(weights[name], w.bfloat16()) for name, w in huggingface_weights(model).items())


def test_it_resumes_with_the_same_bits(full: TinyRun, tmp_path: Path) -> None:
    stage = full.stage("pd", "finetune")
    arguments = (*COMMON, "--dump_folder", tmp_path)
    torchrun(2, "pdforge.titan.train", *arguments, "--training.steps", "4", cwd=stage.job)
    assert [row["step"] for row in steps(rows(StageDirectory(tmp_path)))] == [1, 2, 3, 4]
    torchrun(2, "pdforge.titan.train", *arguments, cwd=stage.job)
    assert steps(rows(StageDirectory(tmp_path))) == steps(rows(stage))
