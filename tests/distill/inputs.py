"""Student, teacher and labels with everything that can go wrong: ragged rows, ignored labels, missing teachers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pdforge.distill.divergence import divergence
from pdforge.distill.loss import IGNORE_INDEX, Objective
from pdforge.distill.teacher import Teacher, read_teacher
from pdforge.distill.temperature import WTTM, ByEntropy, BySpread, NormKD, Static, Temperature
from pdforge.distill.truncation import truncate
from tests.distill.dense import Case

ROWS, VOCABULARY, TOP_K = 24, 61, 9
IGNORED, MISSING = (4, 9), (7, 9)


@dataclass(frozen=True)
class Inputs:
    """Of ROWS positions: student logits, labels, a teacher's entries, the spread of its logits, and these."""

    logits: Tensor
    labels: Tensor
    ids: Tensor
    logprobs: Tensor
    spread: Tensor
    teacher_logits: Tensor | None = None

    def teacher(self) -> Teacher:
        """As the loss takes it."""
        return read_teacher(self.ids, self.logprobs, VOCABULARY, self.spread)

    def kept(self) -> list[dict[int, float]]:
        """As the reference takes it."""
        rows = zip(self.ids.tolist(), self.logprobs.tolist(), strict=True)
        return [{i: v for i, v in zip(*row, strict=True) if v > -torch.inf} for row in rows]


def make(seed: int = 0, top_p: float = 0.9, top_k: int = TOP_K) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    # rows from flat to peaked, so that they keep from one to k tokens
    sharpness = torch.linspace(0.5, 6, ROWS)[:, None]
    teacher = torch.randn(ROWS, VOCABULARY, generator=generator) * sharpness
    student = torch.randn(ROWS, VOCABULARY, generator=generator) * 2
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    kept = truncate(teacher, top_p, top_k)
    # labels inside and outside of what is kept
    labels[::2] = kept.ids[::2, 0]
    labels[list(IGNORED)] = IGNORE_INDEX
    logprobs = kept.logprobs.clone()
    logprobs[list(MISSING)] = -torch.inf
    return Inputs(student, labels, kept.ids, logprobs, teacher.std(1, correction=0), teacher)


def temperature(case: Case) -> Temperature:
    match case.temperature:
        case float() as value:
            return Static(torch.tensor(value))
        case "normkd":
            return NormKD(case.norm)
        case "wttm":
            return WTTM(case.gamma)
        case "adakd_sd":
            return BySpread(case.low, case.high, case.reference)
        case "adakd_h":
            return ByEntropy(case.low, case.high)
    raise AssertionError(case.temperature)


def objective(case: Case) -> Objective:
    kind, on = ("mse", "logits") if case.loss == "mse_logits" else (case.loss, "probabilities")
    return Objective(divergence(kind, case.tail, beta=case.beta, on=on), case.tail, temperature(case))


TEMPERATURES = (0.5, 1.0, 2.0, "normkd", "wttm", "adakd_sd", "adakd_h")
SOUND = [
    Case(loss, tail, temperature)
    for loss in ("nll", "kld", "reverse_kld", "jsd", "mse", "mse_logits")
    for tail in ("renormalise", "ghost", "label")
    for temperature in TEMPERATURES
    if not (loss == "reverse_kld" and tail != "ghost") and not (loss == "mse_logits" and tail != "renormalise")
]
"""Every combination that has a meaning."""


def name(case: Case) -> str:
    return f"{case.loss}-{case.tail}-{case.temperature}"
