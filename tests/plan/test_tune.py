"""The search over ways to run a training: known answers, and what never happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.errors import UsageError
from pdforge.plan.build import make_plans
from pdforge.plan.content import written_fingerprint
from pdforge.plan.duration import Rate
from pdforge.plan.fitting import ROOM
from pdforge.plan.jobs import TrainJob
from pdforge.plan.memory import training_memory
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile
from pdforge.plan.step_time import step_time
from pdforge.plan.tune import Tuned, tune
from pdforge.recipe.load import load_recipes

RATE = Rate(350e12, "assumed", 1.6, 0.0)


SEVERAL = """\
recipe: several
extends: quickstart
variants: null
teacher: null
teachers:
  - weight: 0.5
    model: {kind: pretrain, architecture: {family: llama3, hidden: 128, ffn: 256, layers: 2, heads: 4},
            training: {batch: {global: 16, micro: 8}, steps: 20}}
    truncation: {kind: topp_topk, top_p: 0.95, top_k: 50}
  - weight: 0.5
    model: {kind: pretrain, architecture: {family: llama3, hidden: 128, ffn: 256, layers: 4, heads: 4},
            training: {batch: {global: 16, micro: 8}, steps: 20}}
    truncation: {kind: topp_topk, top_p: 0.95, top_k: 50}
"""


def gpus(memory: str, nodes: int = 1, a_node: int = 8, gpu: str = "H100") -> Profile:
    return Profile(
        name="gpus",
        executor="slurm",
        device="cuda",
        nodes=nodes,
        processes_per_node=a_node,
        gpu=gpu,
        gpu_memory=memory,  # type: ignore[arg-type]
    )


def planned(recipe: str, variant: str | None, profile: Profile, *overrides: str) -> Plan:
    loaded = load_recipes(recipe, variants=[variant] if variant else [], overrides=overrides)
    [plan] = make_plans(loaded, profile, Path("/none"), fingerprint_of=written_fingerprint)
    return plan


def tuned(recipe: str, variant: str, profile: Profile, *overrides: str, most: int = 5) -> tuple[Plan, Tuned]:
    plan = planned(recipe, variant, profile, *overrides)
    assert isinstance(plan.training.job, TrainJob)
    return plan, tune(plan.training.job, plan.recipe, profile, RATE, most=most)


def test_what_fits_well_is_left_alone() -> None:
    _, found = tuned("pd_star", "1.9b", gpus("80GB"))
    assert found.asked_fits
    assert found.best[0].words == ()


def test_recomputing_is_given_up_where_memory_allows() -> None:
    _, found = tuned("pd_star", "6.8b", gpus("80GB", nodes=8))
    assert found.asked_fits
    assert "training.activation_checkpointing=none" in found.best[0].words
    assert found.best[0].time.again == 0 < found.asked.time.again


def test_a_large_model_on_small_gpus() -> None:
    """16 bytes of 6.8B parameters are 13.6 GB on each of 8 GPUs: only smaller pieces of the batch fit beside."""
    _, found = tuned("pd_star", "6.8b", gpus("24GB", gpu="L40S"))
    assert not found.asked_fits
    best = found.best[0]
    assert best.memory.total < 24e9
    assert best.job.training.activation_checkpointing == "full"
    assert best.job.training.parallelism.data_replicate == 1
    assert any("memory" in refusal.reason for refusal in found.refusals)


def test_on_a_cpu_there_is_nothing_to_change() -> None:
    cpu = Profile(name="local", device="cpu", processes_per_node=2)
    _, found = tuned("quickstart", "pd", cpu)
    assert found.best[0].words == ()
    assert found.asked_fits


def test_where_nothing_fits_the_nearest_is_named() -> None:
    _, found = tuned("pd_star", "6.8b", gpus("4GB", gpu="L40S"))
    assert found.best == ()
    assert found.nearest is not None
    assert 4e9 < found.nearest.memory.total < found.asked.memory.total


def test_a_fine_tuning_is_searched_without_another_run() -> None:
    profile = gpus("80GB", a_node=2)
    plan = planned("quickstart_full", None, profile)
    stage = plan.stage("finetune")
    assert stage is not None
    assert isinstance(stage.job, TrainJob)
    changed = [each for each in tune(stage.job, plan.recipe, profile, RATE).best if each.words]
    assert changed
    for each in changed:
        assert planned("quickstart_full", None, profile, *each.words).hash == plan.hash


def test_a_teacher_of_several_is_searched_too(tmp_path: Path) -> None:
    """`--set teachers.0.model.training.…` is what its proposals say."""
    recipe = tmp_path / "several.yaml"
    recipe.write_text(SEVERAL)
    profile = gpus("80GB", a_node=2)
    plan = planned(str(recipe), None, profile)
    [*_, stage] = [stage for stage in plan.stages if stage.kind == "pretrain-teacher"]
    assert isinstance(stage.job, TrainJob)
    assert stage.job.place == "teachers.1.model.training"
    changed = [each for each in tune(stage.job, plan.recipe, profile, RATE).best if each.words]
    assert changed
    assert planned(str(recipe), None, profile, *changed[0].words).hash == plan.hash


def test_what_is_unknown_is_asked_for() -> None:
    with pytest.raises(UsageError, match="does not say what its GPUs are") as raised:
        tuned("pd_star", "1.9b", Profile(name="gpus", device="cuda", processes_per_node=8))
    assert "gpu" in raised.value.remedy


@pytest.mark.parametrize(
    ("variant", "profile"),
    [
        ("1.9b", gpus("24GB", a_node=4, gpu="L40S")),
        ("1.9b", gpus("16GB", nodes=4, gpu="L40S")),
        ("3.8b", gpus("40GB", nodes=2, gpu="A100-40GB")),
    ],
)
def test_every_proposal_is_a_plan_of_the_same_run(variant: str, profile: Profile) -> None:
    plan, found = tuned("pd_star", variant, profile, most=12)
    offered = profile.memory_of_a_gpu
    assert offered
    assert found.best
    times = [each.time.total for each in found.best]
    for each in found.best:
        again = planned("pd_star", variant, profile, *each.words)
        assert again.hash == plan.hash
        assert [stage.key for stage in again.stages] == [stage.key for stage in plan.stages]
        job = again.training.job
        assert isinstance(job, TrainJob)
        assert job.training == each.job.training
        assert training_memory(job).total == each.memory.total <= (1 - ROOM) * offered
        assert step_time(job, profile, RATE.flops) == each.time
    assert len({each.words for each in found.best}) == len(found.best)
    # the first is as quick as any, to the model's accuracy
    assert times[0] <= 1.02 * min(times)
