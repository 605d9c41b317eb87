"""An α that follows a teacher which drew its distributions while it was pre-trained: from what its store says, through
a kill, and on another number of processes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from pdforge.layout import StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.curves import curves
from pdforge.plan.jobs import CaptureJob, ModelSource, TrainJob
from pdforge.plan.model import Plan, StageKind
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes
from pdforge.recipe.models import Sample
from pdforge.store.logits import LogitStore
from pdforge.store.tokens import TokenStore
from pdforge.titan.teacher import Signal, load_teacher
from tests.stages.conftest import TINY, pdforge, rows, run_and_kill, steps, torchrun

pytestmark = pytest.mark.slow

BATCH, STEPS, SHARD = 16, 19, 20
SAMPLE = Sample(kind="sample", draws=20, seed=5)
SETS = (
    f"teacher.logits={{mode: online, from_step: 1, shard_sequences: {SHARD}}}",
    "teacher.truncation={kind: sample, draws: 20, seed: 5}",
    "teacher.model.training.checkpoint={every: 1, keep: 30}",
    "objective.alpha={schedule: teacher_convergence, peak: 0.8, half_at: 0.5}",
    "training.validate_every=null",
)


def planned(root: Path) -> Plan:
    [plan] = make_plans(load_recipes(str(TINY), variants=["pd"], overrides=SETS), local_profile(2), root)
    return plan


def command(root: Path) -> list[str]:
    options = [part for one in SETS for part in ("--set", one)]
    return ["run", str(TINY), "--variant", "pd", "--root", str(root), "--processes", "2", *options]


def stage(root: Path, kind: StageKind) -> StageDirectory:
    found = planned(root).stage(kind)
    assert found is not None
    return StageDirectory(root / found.directory)


def alphas(directory: StageDirectory) -> list[float]:
    return [row["alpha"] for row in steps(rows(directory))]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("convergence") / "runs"
    pdforge(*command(root))
    return root


def test_alpha_is_what_the_store_says_of_the_teacher(root: Path) -> None:
    """Against the losses that the teacher's own training logged, whose steps are those of the student here."""
    found = alphas(stage(root, "train"))
    recorded = LogitStore.open(stage(root, "capture").output).manifest.capture
    of_sample = [shard["loss"] for shard in recorded["shards"] for _ in range(SHARD)][: STEPS * BATCH]
    losses = [sum(of_sample[step * BATCH : (step + 1) * BATCH]) / BATCH for step in range(STEPS)]
    last = recorded["last"]["loss"]
    assert found == pytest.approx([0.8 * 2 ** (-max(0.0, loss - last) / 0.5) for loss in losses])
    assert found[0] < 0.25 * found[-1]
    logged = [row["loss"] for row in steps(rows(stage(root, "pretrain-teacher")))]
    # shards do not end where steps do: 4 of the first one's 20 samples are the second step's
    assert losses[0] == pytest.approx((logged[0] * 16 + logged[1] * 4) / 20, abs=0.05)
    # the last 20 samples are the last step's 16 and a quarter of those before it
    assert recorded["last"]["steps"] == [len(logged) - 1, len(logged)]
    assert last == pytest.approx((logged[-1] * 16 + logged[-2] * 4) / 20, abs=0.05)


def test_the_plan_draws_what_was_trained_with(root: Path) -> None:
    job = planned(root).training.job
    assert isinstance(job, TrainJob)
    drawn = curves(job)[0]
    found = alphas(stage(root, "train"))
    assert drawn.steps == tuple(range(1, STEPS + 1))
    assert drawn.values == pytest.approx(found, rel=1e-6)  # float32 in the trainer


def test_each_step_draws_from_its_own_weights(root: Path) -> None:
    store, job = LogitStore.open(stage(root, "capture").output), planned(root).stage("capture").job  # type: ignore[union-attr]
    assert isinstance(job, CaptureJob)
    assert isinstance(job.teacher, ModelSource)
    tokens, samples = TokenStore.open(job.tokens), range(11 * BATCH, 12 * BATCH)
    model = load_teacher(job.teacher.model_copy(update={"step": 11}), tokens, torch.device("cpu"), torch.float32)
    kept = Signal(model, tokens, SAMPLE, 512, 64).of_samples("train", samples)
    ids, logprobs, _ = map(torch.from_numpy, store.get_batch(samples))
    same = (dense(ids, logprobs.exp()) - dense(kept["ids"], kept["draws"] / SAMPLE.draws)).abs().amax(-1) < 1e-6
    assert same.double().mean() > 0.99


def dense(ids: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Shares [B, L, V] of entries [B, L, K]."""
    return torch.zeros(*ids.shape[:2], 512).scatter_add_(-1, ids.long(), shares.float())


def test_killed_and_resumed(root: Path, tmp_path: Path) -> None:
    """SIGKILL of the student behind a checkpoint, then the same command: the same rows, α's column among them."""
    again = tmp_path / "runs"
    for part in ("tokens", "teachers", "logits"):
        shutil.copytree(root / part, again / part)
    student = stage(again, "train")
    run_and_kill(command(again), student, lambda step: step >= 12)
    pdforge(*command(again))
    assert len(list(student.attempts.iterdir())) == 2
    assert rows(student) == rows(stage(root, "train"))


def test_one_process_has_the_same_alpha(root: Path, tmp_path: Path) -> None:
    """By hand, cut short: the schedule is that of the whole training."""
    arguments = ("--module", "train", "--config", "config", "--dump_folder", tmp_path, "--training.steps", "4")
    torchrun(1, "pdforge.titan.train", *arguments, cwd=stage(root, "train").job)
    assert alphas(StageDirectory(tmp_path)) == alphas(stage(root, "train"))[:4]
