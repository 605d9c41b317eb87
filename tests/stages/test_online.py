"""A teacher that stores its distributions while it is pre-trained: those of each step's own weights, through a kill."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pdforge.launch.progress import read_progress
from pdforge.layout import StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.jobs import CaptureJob, ModelSource
from pdforge.plan.model import Plan
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes
from pdforge.recipe.models import TopPTopK
from pdforge.store.logits import LogitStore
from pdforge.store.tokens import TokenStore
from pdforge.titan.loader import StoreLoader
from pdforge.titan.teacher import Signal, load_teacher
from tests.stages.conftest import TINY, TinyRun, pdforge, rows, run_and_kill, steps
from tests.store import made

pytestmark = pytest.mark.slow

FROM, BATCH = 8, 16
FIRST = (FROM - 1) * BATCH
SETS = (
    f"teacher.logits={{mode: online, from_step: {FROM}, codec: lossless, shard_sequences: 20, columns: [entropy]}}",
    "training.steps=6",
    "training.validate_every=null",
)


def planned(root: Path, *sets: str) -> Plan:
    [plan] = make_plans(load_recipes(str(TINY), variants=["pd"], overrides=[*SETS, *sets]), local_profile(2), root)
    return plan


def command(root: Path, *sets: str) -> list[str]:
    options = [part for one in (*SETS, *sets) for part in ("--set", one)]
    return ["run", str(TINY), "--variant", "pd", "--root", str(root), "--processes", "2", *options]


def stage(root: Path, plan: Plan, kind: str) -> StageDirectory:
    found = plan.stage(kind)  # type: ignore[arg-type]
    assert found is not None
    return StageDirectory(root / found.directory)


@pytest.fixture(scope="module")
def root(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose teacher keeps every checkpoint."""
    root = tmp_path_factory.mktemp("online") / "runs"
    shutil.copytree(tiny.root / "tokens", root / "tokens")
    pdforge(*command(root, "teacher.model.training.checkpoint={every: 1, keep: 30}"))
    return root


def test_training_is_the_same_with_and_without(tiny: TinyRun, root: Path) -> None:
    plan = planned(root)
    assert rows(stage(root, plan, "pretrain-teacher")) == rows(tiny.stage("pd", "pretrain-teacher"))


def test_each_step_stores_the_distributions_of_its_own_weights(root: Path) -> None:
    plan = planned(root)
    store = LogitStore.open(stage(root, plan, "capture").output)
    assert read_progress(stage(root, plan, "capture")).step == len(store)
    assert (store.manifest.first, len(store)) == (FIRST, 6 * BATCH)
    assert store.verify() == []
    job = plan.stage("capture").job  # type: ignore[union-attr]
    assert isinstance(job, CaptureJob)
    assert isinstance(job.teacher, ModelSource)
    tokens = TokenStore.open(job.tokens)
    for step in (FROM, FROM + 3):
        source = job.teacher.model_copy(update={"step": step - 1})
        model = load_teacher(source, tokens, torch.device("cpu"), torch.float32)
        signal_of = Signal(model, tokens, TopPTopK(top_p=0.95, top_k=50), 512, 64)
        samples = range((step - 1) * BATCH, step * BATCH)
        kept = signal_of.of_samples("train", samples, ("label_logprob",))
        ids, logprobs, _ = store.get_batch(samples)
        same = ids == kept["ids"].numpy()
        assert same.mean() > 0.99
        np.testing.assert_allclose(logprobs[same], kept["logprobs"].numpy()[same], atol=1e-4)
    # what the manifest says of the teacher, shard by shard: 20 sequences are a step and a part of the next
    shards = store.manifest.capture["shards"]
    assert [shard["steps"] for shard in shards] == [[8, 9], [9, 10], [10, 11], [11, 12], [13, 13]]
    training = {row["step"]: row["loss"] for row in steps(rows(stage(root, plan, "pretrain-teacher")))}
    assert shards[4]["loss"] == pytest.approx(training[13], abs=1e-4)


def test_the_student_reads_the_samples_that_the_teacher_saw(root: Path) -> None:
    plan = planned(root)
    job = plan.training.job
    config = StoreLoader.Config(
        tokens=job.tokens,
        samples=6 * BATCH,
        first=job.first_sample,
        logits=job.logits,
        top_p=0.95,
        top_k=50,
        named=True,
    )
    loader = StoreLoader(config, dp_world_size=2, dp_rank=1, local_batch_size=4)
    batch, labels = next(iter(loader))
    assert batch["samples"].tolist() == list(range(FIRST + 4, FIRST + 8))
    expected = TokenStore.open(job.tokens).split("train").get(FIRST + 4)[0]
    assert labels[0].tolist() == expected[1:].tolist()
    found = steps(rows(stage(root, plan, "train")))
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert all(row["kept_mass"] > 0.3 for row in found)


def test_killed_while_it_stores_it_ends_in_the_same_bytes(tiny: TinyRun, root: Path, tmp_path: Path) -> None:
    """SIGKILL past a checkpoint, with a segment published that is behind no checkpoint."""
    again = tmp_path / "runs"
    shutil.copytree(tiny.root / "tokens", again / "tokens")
    sets = ("teacher.model.training.checkpoint={every: 6, keep: 2}",)
    plan = planned(again, *sets)
    teacher = stage(again, plan, "pretrain-teacher")
    assert teacher.path.name == stage(root, planned(root), "pretrain-teacher").path.name

    def past_a_checkpoint(step: int) -> bool:
        return step >= 14 and any(int(path.name.split("-")[2]) > 12 for path in teacher.distributions.glob("segment-*"))

    run_and_kill(command(again, *sets), teacher, past_a_checkpoint)
    pdforge(*command(again, *sets))
    straight, killed = (stage(one, planned(one), "capture").output for one in (root, again))
    assert made.contents(killed) == made.contents(straight)
