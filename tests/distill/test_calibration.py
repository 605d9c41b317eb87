"""Calibration against its definition in numpy, float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdforge.distill.calibration import BINS, Calibration


def reference(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    logits = logits.astype(np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    confidence, right = p.max(1), p.argmax(1) == labels
    error = 0.0
    for low in np.arange(BINS) / BINS:
        inside = (confidence >= low) & (confidence < low + 1 / BINS) if low < 1 - 1 / BINS - 1e-9 else confidence >= low
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(-np.log(p[np.arange(len(labels)), labels]).mean()), float(right.mean()), float(error)


@pytest.mark.parametrize("scale", [0.1, 2.0, 20.0])
def test_against_the_definition(scale: float) -> None:
    rng = np.random.default_rng(int(scale))
    logits = (rng.normal(size=(5000, 11)) * scale).astype(np.float32)
    labels = np.where(rng.random(5000) < 0.5, logits.argmax(1), rng.integers(0, 11, 5000))
    sums = Calibration()
    for part in (*np.array_split(np.arange(5000), 7), np.arange(0)):
        sums.add(torch.from_numpy(logits[part]), torch.from_numpy(labels[part]))
    loss, accuracy, error = reference(logits, labels)
    assert sums.positions == 5000
    assert sums.mean_loss == pytest.approx(loss, rel=1e-6)
    assert sums.accuracy == pytest.approx(accuracy, abs=1e-12)
    assert sums.error == pytest.approx(error, abs=1e-6)


def test_a_model_that_knows_how_sure_it_may_be_has_no_error() -> None:
    """Confidence 0.75, right in three of four."""
    logits = torch.tensor([0.75, 0.25]).log().expand(400, 2)
    labels = (torch.arange(400) % 4 == 0).long()
    sums = Calibration()
    sums.add(logits, labels)
    assert sums.error == pytest.approx(0.0, abs=1e-6)
    sums.add(logits, torch.ones(400, dtype=torch.long))
    assert sums.error == pytest.approx(0.375, abs=1e-6)
