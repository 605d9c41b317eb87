"""`finetune` on a real, tiny student: where it starts, what it learns, and that it resumes with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pdforge.layout import HUGGINGFACE, StageDirectory
from pdforge.plan.jobs import ExportJob, ModelSource, TrainJob
from pdforge.stages.entry import read_job
from pdforge.store.mixture import Mixture
from pdforge.store.tokens import TokenStore
from pdforge.titan.huggingface import huggingface_weights
from pdforge.titan.inference import load
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


def test_it_starts_from_the_trained_student_and_learns_answers_and_text(full: TinyRun) -> None:
    """The loss of its first step is the trained student's, over the labels that carry loss and no others."""
    job, student = read_job(full.stage("pd", "finetune")), full.stage("pd", "train")
    assert isinstance(job, TrainJob)
    mix = job.conversations
    assert mix is not None
    source = ModelSource(
        architecture=job.architecture,
        vocabulary=job.vocabulary,
        sequence_length=job.sequence_length,
        checkpoint=str(student.checkpoints),
        step=19,
    )
    model = load(source, torch.device("cpu"), torch.float32)
    samples = Mixture(
        TokenStore.open(mix.store),
        TokenStore.open(job.tokens),
        sequences=mix.sequences,
        text_sequences=mix.text_sequences,
        text_from=mix.text_from,
    )
    tokens, positions, learnt = map(torch.from_numpy, samples.get_labelled_batch(range(16)))
    assert 0 < learnt.float().mean() < 1
    logits = model.logits(model.hidden(tokens[:, :-1].long(), positions.long()))[learnt]
    expected = torch.nn.functional.cross_entropy(logits, tokens[:, 1:][learnt].long())
    assert rows(full.stage("pd", "finetune"))[0]["lm_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_the_export_is_the_fine_tuned_student(full: TinyRun) -> None:
    job = read_job(full.stage("pd", "export"))
    assert isinstance(job, ExportJob)
    student = full.stage("pd", "finetune").checkpoints.relative_to(full.root)
    assert str(job.student.checkpoint).endswith(f"/{student}")  # of the root that the run was made in
    weights = load_file(full.stage("pd", "export").output / HUGGINGFACE / "model.safetensors")
    model = load(job.student, torch.device("cpu"), torch.float32)
    assert all(torch.equal(weights[name], w.bfloat16()) for name, w in huggingface_weights(model).items())


def test_it_resumes_with_the_same_bits(full: TinyRun, tmp_path: Path) -> None:
    stage = full.stage("pd", "finetune")
    arguments = (*COMMON, "--dump_folder", tmp_path)
    torchrun(2, "pdforge.titan.train", *arguments, "--training.steps", "4", cwd=stage.job)
    assert [row["step"] for row in steps(rows(StageDirectory(tmp_path)))] == [1, 2, 3, 4]
    torchrun(2, "pdforge.titan.train", *arguments, cwd=stage.job)
    assert steps(rows(StageDirectory(tmp_path))) == steps(rows(stage))
