"""The mixed loss and its gradient against a dense float64 reference."""

from __future__ import annotations

import pytest
import torch

from pdforge.distill.loss import IGNORE_INDEX, MixedLoss, mixed_loss
from pdforge.distill.target import Target, soften
from pdforge.distill.truncation import truncate
from tests.distill.dense import dense_mixture, dense_target

ROWS, VOCABULARY = 40, 120


@pytest.fixture
def teacher_logits() -> torch.Tensor:
    return torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def student_logits() -> torch.Tensor:
    return torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(2)) * 2


@pytest.fixture
def labels() -> torch.Tensor:
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=torch.Generator().manual_seed(3))
    labels[[4, 9]] = IGNORE_INDEX
    return labels


def _target(teacher: torch.Tensor, temperature: float, *, missing: tuple[int, ...] = ()) -> Target:
    kept = truncate(teacher, 0.9, 12)
    logprobs = kept.logprobs.clone()
    logprobs[list(missing)] = -torch.inf
    return soften(kept.ids, logprobs, temperature)


def _loss(z: torch.Tensor, labels: torch.Tensor, target: Target, alpha: float, *, kld: bool = True) -> MixedLoss:
    return mixed_loss(z, labels, target, torch.tensor(alpha), subtract_entropy=kld)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kld", [True, False])
def test_value_and_gradient(teacher_logits, student_logits, labels, alpha, temperature, kld) -> None:
    missing = (7,)
    z = student_logits.clone().requires_grad_()
    loss = _loss(z, labels, _target(teacher_logits, temperature, missing=missing), alpha, kld=kld).total
    (gradient,) = torch.autograd.grad(loss, z)

    exact = student_logits.double().requires_grad_()
    reference = dense_target(teacher_logits, 0.9, 12, temperature)
    reference[list(missing)] = 0
    # α as the loss sees it, in float32
    expected = dense_mixture(exact, labels, reference, float(torch.tensor(alpha)), kld=kld)
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=5e-7)
    assert (gradient - expected_gradient).abs().max() <= 5e-7


def test_gradients_of_kld_and_nll_are_equal(teacher_logits, student_logits, labels) -> None:
    z = student_logits.clone().requires_grad_()
    target = _target(teacher_logits, 2.0)
    gradients = [torch.autograd.grad(_loss(z, labels, target, 0.9, kld=kld).total, z)[0] for kld in (True, False)]
    assert torch.equal(*gradients)


def test_alpha_zero_is_cross_entropy(teacher_logits, student_logits, labels) -> None:
    z = student_logits.clone().requires_grad_()
    loss = _loss(z, labels, _target(teacher_logits, 1.0), 0.0).total
    (gradient,) = torch.autograd.grad(loss, z)
    other = student_logits.clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(other, labels, reduction="sum", ignore_index=IGNORE_INDEX)
    (expected_gradient,) = torch.autograd.grad(expected, other)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-7)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=2e-7)


def test_each_term_has_a_gradient(teacher_logits, student_logits, labels) -> None:
    z = student_logits.clone().requires_grad_()
    target = _target(teacher_logits, 1.0)
    for alpha in (0.0, 1.0):
        (gradient,) = torch.autograd.grad(_loss(z, labels, target, alpha).total, z)
        assert gradient.abs().sum() > 1


def test_student_equal_to_its_teacher_has_no_distillation_gradient(teacher_logits, labels) -> None:
    z = teacher_logits.clone().requires_grad_()
    everything = truncate(teacher_logits, 1.0, VOCABULARY)
    loss = _loss(z, labels, soften(everything.ids, everything.logprobs, 1.0), 1.0)
    (gradient,) = torch.autograd.grad(loss.total, z)
    assert gradient.abs().max() <= 1e-6
    assert abs(float(loss.kd)) <= 1e-4


def test_positions_without_label_weigh_nothing(teacher_logits, student_logits, labels) -> None:
    target = _target(teacher_logits, 1.0)
    z = student_logits.clone()
    # an infinite logit there would poison a sum that merely multiplies by zero
    z[4, 0] = torch.inf
    z.requires_grad_()
    loss = _loss(z, labels, target, 0.5).total
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(loss)
    assert gradient[9].abs().max() == 0


def test_bfloat16_logits_stay_near_the_reference(teacher_logits, student_logits, labels) -> None:
    low = student_logits.bfloat16().requires_grad_()
    target = _target(teacher_logits, 1.0)
    (gradient,) = torch.autograd.grad(_loss(low, labels, target, 0.9).total, low)
    exact = student_logits.bfloat16().double().requires_grad_()
    reference = dense_mixture(
        exact, labels, dense_target(teacher_logits, 0.9, 12, 1.0), float(torch.tensor(0.9)), kld=True
    )
    (expected,) = torch.autograd.grad(reference, exact)
    # one rounding of the result to bfloat16 (8 bits of significand)
    assert gradient.dtype == torch.bfloat16
    assert ((gradient.double() - expected).abs() <= 2**-8 * expected.abs() + 1e-7).all()
