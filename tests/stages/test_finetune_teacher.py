"""`finetune` with a teacher beside the student, for real: its losses, and the same bits through a kill."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from pdforge.layout import StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.jobs import ModelSource, TrainJob
from pdforge.plan.model import Plan
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes
from pdforge.stages.entry import read_job
from pdforge.store.mixture import Mixture
from pdforge.store.tokens import TokenStore
from pdforge.titan.inference import load
from tests.stages.conftest import TINY_FULL, TinyRun, pdforge, results, rows, run_and_kill, steps

pytestmark = pytest.mark.slow

SETS = (
    "finetune.objective={alpha: 0.5, temperature: 2}",
    "finetune.training.checkpoint={every: 1, keep: 30}",
    "finetune.training.validate_every=null",
    "training.steps=6",
    "training.validate_every=null",
    *("export=null", "evaluate=null", "expect=[]"),
)


def planned(root: Path) -> Plan:
    loaded = load_recipes(str(TINY_FULL), variants=["pd"], overrides=SETS)
    [plan] = make_plans(loaded, local_profile(2), root)
    return plan


def command(root: Path) -> list[str]:
    options = [part for one in SETS for part in ("--set", one)]
    return ["run", str(TINY_FULL), "--variant", "pd", "--root", str(root), "--processes", "2", *options]


def stage_of(root: Path) -> StageDirectory:
    stage = planned(root).stage("finetune")
    assert stage is not None
    return StageDirectory(root / stage.directory)


@pytest.fixture(scope="module")
def root(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose teacher is that of the tiny run."""
    root = tmp_path_factory.mktemp("taught") / "runs"
    for name in ("tokens", "teachers"):
        shutil.copytree(tiny.root / name, root / name)
    pdforge(*command(root))
    return root


def weights(stage: StageDirectory, step: int, plain: Path) -> dict[str, torch.Tensor]:
    dcp_to_torch_save(stage.checkpoint(step), plain)
    found = torch.load(plain, weights_only=False)
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def test_its_rows(root: Path) -> None:
    stage = stage_of(root)
    logged = steps(rows(stage))
    assert [row["step"] for row in logged] == list(range(1, 12))
    assert [(row["alpha"], row["temperature"]) for row in logged] == [(0.5, 2.0)] * 11
    for row in logged:
        assert row["loss"] == pytest.approx(0.5 * row["lm_loss"] + 0.5 * row["kd_loss"], rel=1e-5)
    assert logged[-1]["kd_loss"] < logged[0]["kd_loss"]
    assert results(stage)["tokens"] == 11 * 16 * 64


def test_the_losses_of_its_first_step(root: Path) -> None:
    """Of the trained student and the teacher's whole distributions, over the labels that carry loss and no others."""
    job = read_job(stage_of(root))
    assert isinstance(job, TrainJob)
    assert isinstance(job.teacher, ModelSource)
    mix, truncation = job.conversations, job.truncation
    assert mix is not None
    assert truncation is not None
    assert truncation.kind == "topp_topk"
    train = planned(root).training
    assert isinstance(train.job, TrainJob)
    source = ModelSource(
        architecture=job.architecture,
        vocabulary=job.vocabulary,
        sequence_length=job.sequence_length,
        checkpoint=str(StageDirectory(root / train.directory).checkpoints),
        step=train.job.steps,
    )
    student, teacher = (load(each, torch.device("cpu"), torch.float32) for each in (source, job.teacher))
    samples = Mixture(
        TokenStore.open(mix.store),
        TokenStore.open(job.tokens),
        sequences=mix.sequences,
        text_sequences=mix.text_sequences,
        text_from=mix.text_from,
    )
    tokens, positions, learnt = map(torch.from_numpy, samples.get_labelled_batch(range(16)))
    inputs, positions = tokens[:, :-1].long(), positions.long()
    assert 0 < learnt.float().mean() < 1
    logits, theirs = (each.logits(each.hidden(inputs, positions))[learnt] for each in (student, teacher))
    entropy = torch.nn.functional.cross_entropy(logits, tokens[:, 1:][learnt].long())
    p, ids = torch.softmax(theirs.double(), -1).sort(-1, descending=True)
    kept = (p.cumsum(-1) - p < truncation.top_p) & (torch.arange(p.shape[-1]) < truncation.top_k)
    softened = torch.where(kept, p, 0.0).sqrt()  # τ = 2
    w = softened / softened.sum(-1, keepdim=True)
    q = torch.log_softmax(logits.double(), -1).gather(1, ids)
    divergence = torch.where(kept, w * (w.clamp_min(1e-300).log() - q), 0.0).sum(-1).mean()
    first = rows(stage_of(root))[0]
    assert first["lm_loss"] == pytest.approx(float(entropy), rel=1e-5)
    assert first["kd_loss"] == pytest.approx(float(divergence), rel=1e-3)


def test_killed_it_ends_with_the_same_bits(root: Path, tmp_path: Path) -> None:
    """Killed without a word in the middle of it, and started again: every row, and every weight."""
    again = tmp_path / "runs"
    shutil.copytree(root, again)
    stage, straight = stage_of(again), stage_of(root)
    shutil.rmtree(stage.path)
    run_and_kill(command(again), stage, lambda _: any(stage.checkpoints.glob("step-4/.metadata")))
    pdforge(*command(again))
    assert len(stage.all_attempts()) > 1
    assert rows(stage) == rows(straight)
    one, other = weights(stage, 11, tmp_path / "one.pt"), weights(straight, 11, tmp_path / "other.pt")
    assert one.keys() == other.keys()
    assert one
    assert all(torch.equal(value, other[name]) for name, value in one.items())
