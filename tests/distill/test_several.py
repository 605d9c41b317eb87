"""Several teachers: the weighted sum of their losses against the dense float64 reference, and one as if alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pdforge.distill.loss import PARTS, MixedLoss, means, mixed_loss, sums_of
from pdforge.distill.teacher import Teacher, read_teacher
from tests.distill.dense import Case, dense_mixture
from tests.distill.inputs import SOUND, VOCABULARY, Inputs, make, name, objective

ALPHA = 0.7
WEIGHTS = (0.5, 0.25, 0.25)  # exact in binary


def teachers() -> list[Inputs]:
    """Teachers of the same positions with other distributions, the third with half of the second's entries."""
    first, second = make(), make(seed=1)
    third = make(seed=4)
    half = third.ids.shape[1] // 2
    cut = replace(third, ids=third.ids[:, :half], logprobs=third.logprobs[:, :half])
    return [first, *(replace(each, labels=first.labels) for each in (second, cut))]


def read(inputs: Inputs) -> Teacher:
    return read_teacher(inputs.ids, inputs.logprobs, VOCABULARY, inputs.spread)


def run(z: Tensor, given: list[Inputs], weights: tuple[float, ...], case: Case) -> tuple[MixedLoss, Tensor]:
    part = z.clone().requires_grad_()
    taught = [(read(each), weight) for each, weight in zip(given, weights, strict=True)]
    loss = mixed_loss(part, given[0].labels, taught, torch.tensor(ALPHA), objective(case))
    return loss, torch.autograd.grad(loss.total, part)[0]


@pytest.mark.parametrize("case", SOUND, ids=name)
def test_value_and_gradient_are_the_weighted_sum_of_each_ones(case: Case) -> None:
    given = teachers()
    z = given[0].logits
    loss, gradient = run(z, given, WEIGHTS, case)
    exact, seen = z.double().requires_grad_(), float(torch.tensor(ALPHA))
    expected = sum(
        weight * dense_mixture(exact, given[0].labels.tolist(), each.kept(), each.spread.tolist(), seen, case)
        for each, weight in zip(given, WEIGHTS, strict=True)
    )
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    assert abs(float(loss.total.detach()) - float(expected.detach())) <= 1e-6 * abs(float(expected.detach()))
    assert (gradient - expected_gradient).abs().max() <= 5e-7 * expected_gradient.abs().max().clamp_min(1)


@pytest.mark.parametrize("case", SOUND, ids=name)
def test_teachers_of_weight_zero_change_no_bit(case: Case) -> None:
    given = teachers()
    alone, gradient = run(given[0].logits, given[:1], (1.0,), case)
    among, same = run(given[0].logits, given, (1.0, 0.0, 0.0), case)
    assert torch.equal(alone.total, among.total)
    assert torch.equal(gradient, same)
    assert torch.equal(alone.sums, among.sums[: len(PARTS) + 1])


def test_sums_name_each_ones_loss() -> None:
    given = teachers()
    together, _ = run(given[0].logits, given, WEIGHTS, Case("kld"))
    assert together.sums.shape == (sums_of(3),)
    found = means(together.sums)
    alone = [means(run(given[0].logits, [each], (1.0,), Case("kld"))[0].sums)["kd_loss"] for each in given]
    assert [found[f"kd_loss_{number}"] for number in (1, 2, 3)] == pytest.approx(alone, rel=1e-6)
    assert found["kd_loss"] == pytest.approx(sum(w * kd for w, kd in zip(WEIGHTS, alone, strict=True)), rel=1e-6)


def test_of_whole_distributions_the_gradient_is_that_of_their_mixture() -> None:
    """Nothing cut off, τ = 1: Σ wᵢ KL(pᵢ ‖ q) and KL(Σ wᵢ pᵢ ‖ q) differ by a constant; with something cut off not."""
    generator = torch.Generator().manual_seed(3)
    logprobs = torch.log_softmax(torch.randn(2, 6, 11, generator=generator) * 2, -1)
    ids = torch.arange(11).expand(6, 11)
    z, labels = torch.randn(6, 11, generator=generator), torch.randint(0, 11, (6,), generator=generator)
    mixture = (0.25 * logprobs[0].exp() + 0.75 * logprobs[1].exp()).log()

    def gradient(*taught: tuple[Tensor, float]) -> Tensor:
        part = z.clone().requires_grad_()
        read = [(read_teacher(ids, scores, 11), weight) for scores, weight in taught]
        loss = mixed_loss(part, labels, read, torch.tensor(1.0), objective(Case("kld")))
        return torch.autograd.grad(loss.total, part)[0]

    several = gradient((logprobs[0], 0.25), (logprobs[1], 0.75))
    assert (several - gradient((mixture, 1.0))).abs().max() < 1e-6
    cut = torch.where(logprobs > logprobs.median(-1, keepdim=True).values, logprobs, -torch.inf)
    union = (0.25 * cut[0].exp() + 0.75 * cut[1].exp()).log()
    assert (gradient((cut[0], 0.25), (cut[1], 0.75)) - gradient((union, 1.0))).abs().max() > 1e-3
