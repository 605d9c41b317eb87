"""What stops a training, without one: losses and gradients that are not finite, checkpoints of other trainings."""

from __future__ import annotations

import json

import pytest
import torch
from torchtitan import trainer

import pdforge.titan  # noqa: F401 - prepares torchtitan for this device
from pdforge.errors import StageFailed, UsageError
from pdforge.plan.jobs import ModelSource
from pdforge.recipe.models import Architecture, Objective, TopPTopK
from pdforge.store.order import SampleOrder
from pdforge.titan import DistillationLoss, DistillTrainer, LiveTeacher, StoreLoader
from pdforge.titan.checkpoints import require_same_science, science
from pdforge.titan.guard import FiniteStep, gradient_norms, listed


def _positions(micro_step: int) -> range:
    return range(4 * micro_step, 4 * micro_step + 4)


def _guard(micro_steps: int, samples: int = 1000) -> FiniteStep:
    return FiniteStep(micro_steps, _positions, 4 * micro_steps, SampleOrder(samples, 0), torch.device("cpu"))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_the_bad_micro_step_is_named_at_the_end_of_the_step(bad: float) -> None:
    guard = _guard(3)
    for value in (1.0, 2.0, 3.0):
        guard.add(torch.tensor(value))
    guard.agree(torch.tensor(1.0), 6)
    for value in (1.0, bad, 1.0):
        guard.add(torch.tensor(value))
    with pytest.raises(StageFailed, match=r"step 7 is not finite \(rank 0, samples 4-7\)") as caught:
        guard.agree(torch.tensor(torch.nan), 7)
    assert caught.value.remedy


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_under_finite_losses(bad: float) -> None:
    guard = _guard(3)
    for _ in range(3):
        guard.add(torch.tensor(1.0))
    with pytest.raises(StageFailed, match=rf"norm of step 7 is {bad}, .* \(samples 72-83\); no weight was changed"):
        guard.agree(torch.tensor(bad), 7)


@pytest.mark.usefixtures("alone")
def test_in_a_later_epoch_the_samples_are_those_that_were_read() -> None:
    guard, order = _guard(1, samples=2), SampleOrder(2, 0)
    guard.add(torch.tensor(torch.nan))
    assert sorted(order[position] for position in range(4)) == [0, 0, 1, 1]
    with pytest.raises(StageFailed, match=r"\(rank 0, samples 0-1\)"):
        guard.agree(torch.tensor(torch.nan), 1)


def test_samples_in_a_message() -> None:
    assert listed([9, 3, 4, 5, 12]) == "3-5, 9, 12"
    assert listed(range(0, 40, 2)).endswith(", 28, 30 and 4 more")


@pytest.mark.usefixtures("alone")
def test_finite_losses_and_gradients_pass() -> None:
    guard = _guard(2)
    for step in range(1, 6):
        guard.add(torch.tensor(3e38))
        guard.add(torch.tensor(3e38))
        guard.agree(torch.tensor(3e38), step)


def test_torchtitans_norm_is_seen_before_the_optimizer() -> None:
    """As its train_step clips: the norm before clipping, and the function is torchtitan's own again afterwards."""
    parameter, seen, before = torch.zeros(2, requires_grad=True), [], trainer.dist_utils.clip_grad_norm_
    parameter.grad = torch.tensor([3.0, 4.0])
    with gradient_norms(lambda norm: seen.append(norm.item())):
        trainer.dist_utils.clip_grad_norm_([parameter], 1.0, foreach=True)
    assert seen == [5.0]
    assert parameter.grad.norm().item() == pytest.approx(1.0)
    assert trainer.dist_utils.clip_grad_norm_ is before


def _config(**changes: float) -> DistillTrainer.Config:
    loss = DistillationLoss.Config(objective=Objective.model_validate(changes), vocabulary=300)
    return DistillTrainer.Config(loss=loss)


def test_the_same_science_resumes() -> None:
    config = _config()
    before = science(config, "tokens")
    config.training.steps, config.checkpoint.interval = 12345, 7
    require_same_science(before, science(config, "tokens"), 3)


def test_every_difference_is_named() -> None:
    config = _config(temperature=2.0)
    config.training.max_norm = 0.5
    with pytest.raises(UsageError, match="of step 3 is of another training") as caught:
        require_same_science(science(_config(), "tokens"), science(config, "tokens"), 3)
    for difference in ("loss.objective.temperature: 1.0 there, 2.0 here", "training.max_norm: 1.0 there, 0.5 here"):
        assert difference in caught.value.message


def test_another_text_is_another_training() -> None:
    before, config = science(_config(), "these tokens"), _config()
    with pytest.raises(UsageError, match=r"\(content: these tokens there, others here\)"):
        require_same_science(before, science(config, "others"), 3)


def _live(top_k: int, checkpoint: str = "/there") -> DistillTrainer.Config:
    config = _config()
    config.dataloader = StoreLoader.Config(first=top_k)
    shape = Architecture(family="llama3", hidden=64, ffn=128, layers=2, heads=4)
    config.teacher = LiveTeacher.Config(
        source=ModelSource(architecture=shape, vocabulary=300, sequence_length=16, checkpoint=checkpoint, step=2),
        tokens="/tokens",
        samples=1,
        truncation=TopPTopK(kind="topp_topk", top_p=0.95, top_k=top_k),
        precision="float32",
    )
    return config


def test_another_teacher_in_the_job_is_another_training() -> None:
    before = science(_live(50), "tokens")
    require_same_science(before, science(_live(50, "/elsewhere"), "tokens"), 3)
    with pytest.raises(UsageError) as caught:
        require_same_science(before, science(_live(5), "tokens"), 3)
    assert "(first: 50 there, 5 here; teacher.truncation.top_k: 50 there, 5 here)" in caught.value.message
    with pytest.raises(UsageError, match=r"teacher\.precision: None there, float32 here"):
        require_same_science(science(_config(), "tokens"), before, 3)


def test_what_a_checkpoint_of_an_earlier_version_does_not_say_is_not_compared() -> None:
    said = json.loads(science(_live(50), "tokens"))
    old = {name: value for name, value in said.items() if not name.startswith(("content", "first", "teacher"))}
    assert len(old) < len(said)
    require_same_science(json.dumps(old), science(_live(5), "others"), 3)


def test_science_is_not_empty() -> None:
    names = json.loads(science(_config(), "tokens"))
    for part in ("loss.", "optimizer.", "lr_scheduler.", "training.", "dataloader."):
        assert any(name.startswith(part) for name in names), part
