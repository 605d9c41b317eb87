"""The mixed loss and its gradient against a dense float64 reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pdforge.distill.divergence import divergence
from pdforge.distill.loss import IGNORE_INDEX, PARTS, MixedLoss, means, mixed_loss
from pdforge.distill.student import look_up
from pdforge.distill.teacher import read_teacher
from tests.distill.dense import Case, dense_mixture
from tests.distill.inputs import IGNORED, MISSING, ROWS, SOUND, VOCABULARY, Inputs, make, name, objective

ALPHA = 0.7
FORWARD = Case("kld")


def loss_of(z: Tensor, inputs: Inputs, case: Case, alpha: float = ALPHA, rows: slice = slice(None)) -> MixedLoss:
    teacher = read_teacher(inputs.ids[rows], inputs.logprobs[rows], VOCABULARY, inputs.spread[rows])
    return mixed_loss(z, inputs.labels[rows], [(teacher, 1.0)], torch.tensor(alpha), objective(case))


def run(z: Tensor, inputs: Inputs, case: Case, alpha: float = ALPHA, chunks: int = 1) -> tuple[Tensor, Tensor]:
    """Value and gradient, in one piece or, as a chunked head does it, piece by piece."""
    value, gradients = torch.zeros(()), []
    step = ROWS // chunks
    for first in range(0, ROWS, step):
        rows = slice(first, first + step)
        part = z[rows].clone().requires_grad_()
        loss = loss_of(part, inputs, case, alpha, rows).total
        gradients.append(torch.autograd.grad(loss, part)[0])
        value = value + loss.detach()
    return value, torch.cat(gradients)


def reference(z: Tensor, inputs: Inputs, case: Case, alpha: float = ALPHA) -> tuple[Tensor, Tensor]:
    exact = z.double().requires_grad_()
    # α as the loss sees it, in float32
    seen = float(torch.tensor(alpha))
    value = dense_mixture(exact, inputs.labels.tolist(), inputs.kept(), inputs.spread.tolist(), seen, case)
    return value.detach(), torch.autograd.grad(value, exact)[0]


@pytest.mark.parametrize("chunks", [1, 4], ids=["whole", "chunked"])
@pytest.mark.parametrize("case", SOUND, ids=name)
def test_value_and_gradient_float32(case, chunks) -> None:
    inputs = make()
    value, gradient = run(inputs.logits, inputs, case, chunks=chunks)
    expected, expected_gradient = reference(inputs.logits, inputs, case)
    assert abs(float(value) - float(expected)) <= 5e-7 * abs(float(expected))
    assert (gradient - expected_gradient).abs().max() <= 5e-7 * expected_gradient.abs().max().clamp_min(1)


@pytest.mark.parametrize("chunks", [1, 4], ids=["whole", "chunked"])
@pytest.mark.parametrize("case", SOUND, ids=name)
def test_value_and_gradient_bfloat16(case, chunks) -> None:
    """Logits in bfloat16 are computed on in float32: the value is as exact, the gradient rounded once (8 bits)."""
    inputs = make()
    low = inputs.logits.bfloat16()
    value, gradient = run(low, inputs, case, chunks=chunks)
    expected, expected_gradient = reference(low, inputs, case)
    assert gradient.dtype == torch.bfloat16
    assert abs(float(value) - float(expected)) <= 5e-7 * abs(float(expected))
    rounding = 2**-8 * expected_gradient.abs() + 5e-7 * expected_gradient.abs().max().clamp_min(1)
    assert ((gradient.double() - expected_gradient).abs() <= rounding).all()


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_mixture_weights(alpha) -> None:
    inputs = make()
    value, gradient = run(inputs.logits, inputs, FORWARD, alpha)
    expected, expected_gradient = reference(inputs.logits, inputs, FORWARD, alpha)
    assert abs(float(value) - float(expected)) <= 5e-7 * abs(float(expected))
    assert (gradient - expected_gradient).abs().max() <= 5e-7


@pytest.mark.parametrize("tail", ["renormalise", "ghost", "label"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, "adakd_h"])
def test_gradients_of_kld_and_nll_are_equal(tail, temperature) -> None:
    inputs = make()
    gradients = [run(inputs.logits, inputs, Case(loss, tail, temperature))[1] for loss in ("kld", "nll")]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", SOUND, ids=name)
def test_alpha_zero_is_torchs_cross_entropy_bit_for_bit(case, dtype) -> None:
    inputs = make()
    z = inputs.logits.to(dtype)
    value, gradient = run(z, inputs, case, alpha=0.0)
    other = z.clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(other.float(), inputs.labels, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected, other)
    assert torch.equal(value, expected.detach())
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("case", SOUND, ids=name)
def test_each_term_has_a_gradient_and_only_where_it_should(case) -> None:
    inputs = make()
    # one kept token's logit, less its mean, is always 0
    alone = {row for row, kept in enumerate(inputs.kept()) if len(kept) == 1}
    untaught = {*IGNORED, *MISSING} | (alone if case.loss == "mse_logits" else set())
    for alpha, silent in ((0.0, set(IGNORED)), (1.0, untaught)):
        gradient = run(inputs.logits, inputs, case, alpha)[1].abs().sum(1)
        assert {row for row in range(ROWS) if gradient[row] == 0} == silent
    both, lm, kd = (run(inputs.logits, inputs, case, alpha)[1] for alpha in (0.5, 0.0, 1.0))
    assert (both - (lm + kd) / 2).abs().max() <= 1e-6 * both.abs().max().clamp_min(1)


def test_positions_without_label_weigh_nothing() -> None:
    inputs = make()
    # an infinite logit there would poison a sum that merely multiplies by zero
    z = inputs.logits.clone()
    z[IGNORED[0], 0] = torch.inf
    value, gradient = run(z, inputs, FORWARD)
    assert torch.isfinite(value)
    assert value == run(inputs.logits, inputs, FORWARD)[0]
    rest = [row for row in range(ROWS) if row != IGNORED[0]]
    assert torch.isfinite(gradient[rest]).all()


@pytest.mark.parametrize("case", SOUND, ids=name)
def test_what_stands_in_padding_means_nothing(case) -> None:
    inputs = make()
    value, gradient = run(inputs.logits, inputs, case)
    padding = inputs.logprobs == -torch.inf
    assert padding.any()
    noise = torch.randint(0, VOCABULARY, inputs.ids.shape, generator=torch.Generator().manual_seed(5))
    other = Inputs(
        inputs.logits, inputs.labels, torch.where(padding, noise, inputs.ids), inputs.logprobs, inputs.spread
    )
    again, gradient_again = run(inputs.logits, other, case)
    assert torch.equal(again, value)
    assert torch.equal(gradient_again, gradient)


@pytest.mark.parametrize("tail", ["renormalise", "ghost", "label"])
@pytest.mark.parametrize("loss", ["nll", "kld", "jsd", "mse"])
def test_student_equal_to_its_teacher_has_no_distillation_gradient(loss, tail) -> None:
    inputs = make(top_p=1.0, top_k=VOCABULARY)
    # any constant may be added to logits
    z = inputs.teacher_logits + torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(3))
    _, gradient = run(z, inputs, Case(loss, tail), alpha=1.0)
    assert gradient.abs().max() <= 1e-6


def test_reverse_divergence_of_an_exact_copy_is_zero() -> None:
    inputs = make(top_p=0.9)
    # log-probabilities of the teacher with its tail spread evenly: the same outcomes have the same probabilities
    p = torch.zeros(ROWS, VOCABULARY).scatter_add_(1, inputs.ids, inputs.logprobs.exp())
    outside = p == 0
    z = torch.where(outside, (1 - p.sum(1, keepdim=True)) / outside.sum(1, keepdim=True), p).log()
    value, gradient = run(z, inputs, Case("reverse_kld", "ghost"), alpha=1.0)
    assert abs(float(value)) <= 1e-5
    assert gradient.abs().max() <= 1e-6


@pytest.mark.parametrize("tail", ["renormalise", "ghost", "label"])
def test_tail_of_a_larger_teacher_vocabulary_is_impossible(tail) -> None:
    """Ids beyond the student's vocabulary have probability 0: as if they had been cut off, not as if of logit 0."""
    inputs = make()
    ids = inputs.ids.clone()
    ids[:, 1] = VOCABULARY + 5
    cut = inputs.logprobs.clone()
    cut[:, 1] = -torch.inf
    with_foreign = Inputs(inputs.logits, inputs.labels, ids, inputs.logprobs, inputs.spread)
    without = Inputs(inputs.logits, inputs.labels, inputs.ids, cut, inputs.spread)
    values, gradients = zip(
        *(run(inputs.logits, each, Case("kld", tail)) for each in (with_foreign, without)), strict=True
    )
    assert torch.equal(*values)
    assert torch.equal(*gradients)


def test_sampled_targets_are_shares_of_draws() -> None:
    inputs = make()
    counts = torch.randint(0, 4, inputs.ids.shape, generator=torch.Generator().manual_seed(8))
    counts[:, 0] += 1
    shares = counts / counts.sum(1, keepdim=True)
    sampled = Inputs(inputs.logits, inputs.labels, inputs.ids, shares.log(), inputs.spread)
    value, _ = run(inputs.logits, sampled, Case("nll"), alpha=1.0)
    logq = torch.log_softmax(inputs.logits.double(), 1).gather(1, inputs.ids)
    expected = -(shares.double() * logq).sum(1)[inputs.labels != IGNORE_INDEX].sum()
    assert abs(float(value) - float(expected)) <= 5e-7 * float(expected)


@pytest.mark.parametrize(
    ("kind", "tail", "on"),
    [
        ("reverse_kld", "renormalise", ""),
        ("reverse_kld", "label", ""),
        ("mse", "ghost", "logits"),
        ("other", "ghost", ""),
    ],
)
def test_combinations_without_meaning_are_refused(kind, tail, on) -> None:
    with pytest.raises(ValueError, match="no such objective"):
        divergence(kind, tail, on=on)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("square", [False, True])
def test_gradients_of_what_is_looked_up(outside, square) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    columns = torch.tensor([[1, 2, 1], [0, 0, 0], [6, 5, 4]])

    def parts(z: Tensor) -> tuple[Tensor, ...]:
        [student] = look_up(z, [columns], outside=outside, square=square)
        return tuple(part for part in (student.logprobs, student.outside, student.square) if part is not None)

    assert torch.autograd.gradcheck(parts, z)


def test_sums() -> None:
    """Every part against a plain computation over the taught positions."""
    inputs = make()
    result = loss_of(inputs.logits, inputs, Case("kld", temperature=2.0))
    got = means(result.sums)
    assert tuple(got) == PARTS
    q = torch.log_softmax(inputs.logits.double(), 1)
    taught = [row for row in range(ROWS) if row not in {*IGNORED, *MISSING}]
    mass, agreement, kl = [], [], []
    for row in taught:
        kept = inputs.kept()[row]
        p = torch.tensor(list(kept.values())).double()
        mass.append(float(p.exp().sum()))
        agreement.append(float(max(kept, key=kept.get) == int(q[row].argmax())))
        p, own = p.log_softmax(0), q[row, list(kept)].log_softmax(0)
        kl.append(float((p.exp() * (p - own)).sum()))
    assert 0 < sum(agreement) < len(taught)
    count = len(taught)
    expected = {
        "temperature": 2.0,
        "kept_mass": sum(mass) / count,
        "agreement": sum(agreement) / count,
        "kl": sum(kl) / count,
    }
    for key, value in expected.items():
        assert got[key] == pytest.approx(value, rel=1e-5)
    lm, kd = (float(reference(inputs.logits, inputs, Case("kld", temperature=2.0), alpha)[0]) for alpha in (0.0, 1.0))
    assert got["lm_loss"] == pytest.approx(lm, rel=1e-6)
    assert got["kd_loss"] == pytest.approx(kd, rel=1e-6)


def test_sums_without_any_teacher() -> None:
    inputs = make()
    bare = Inputs(inputs.logits, inputs.labels, inputs.ids, torch.full_like(inputs.logprobs, -torch.inf), inputs.spread)
    got = means(loss_of(inputs.logits, bare, Case("kld")).sums)
    assert got["lm_loss"] > 0
    assert all(got[part] == 0 for part in PARTS if part != "lm_loss")
