"""Real trainings on gloo: every parallelism, resumed on another number of processes, and what stops them.

All of them distil from a logit store, on packed documents, from the weights that a run on one process began with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save, torch_save_to_dcp

from pdforge.layout import StageDirectory
from tests.stages.conftest import rows
from tests.titan.conftest import Bench, checkpoints

pytestmark = pytest.mark.slow

LOSSES = ("loss", "lm_loss", "kd_loss", "kl", "heldout_loss")
SPREAD = "training.parallelism."
INTERLEAVED = (SPREAD + "pipeline=2", SPREAD + "pipeline_schedule=interleaved_1f1b")
WAYS: dict[str, tuple[int, tuple[str, ...]]] = {
    "FSDP 2": (2, ()),
    "TP 2": (2, (SPREAD + "tensor=2",)),
    "CP 2": (2, (SPREAD + "context=2",)),
    "PP 2": (2, (SPREAD + "pipeline=2",)),
    "PP 2 interleaved": (2, INTERLEAVED),
}


def _assert_alike(found: list[dict[str, Any]], straight: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in found] == [row["step"] for row in straight]
    for row, other in zip(found, straight, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() & set(LOSSES):
            assert row[name] == pytest.approx(other[name], rel=1e-5), (row["step"], name)
        if "grad_norm" in row:
            assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4), row["step"]


@pytest.mark.parametrize("way", WAYS)
def test_the_numbers_of_one_process(bench: Bench, tmp_path: Path, way: str) -> None:
    """Ten steps and two held-out measurements: losses to 1e-5, gradient norms to 1e-4."""
    processes, sets = WAYS[way]
    bench.train(tmp_path, processes=processes, sets=sets)
    assert len(bench.straight) == 12
    _assert_alike(rows(StageDirectory(tmp_path)), bench.straight)


def test_two_processes_then_one_then_two(bench: Bench, tmp_path: Path) -> None:
    for processes, last in ((2, "4"), (1, "7"), (2, "10")):
        bench.train(tmp_path, "--training.steps", last, processes=processes)
        assert f"step-{last}" in checkpoints(tmp_path)
    found = [row for row in rows(StageDirectory(tmp_path)) if "loss" in row]
    _assert_alike(found, [row for row in bench.straight if "loss" in row])


def test_a_loss_that_is_not_finite_stops_before_the_optimizer(bench: Bench, tmp_path: Path) -> None:
    """A weight of a checkpoint is damaged; step 2 reads samples 8 to 15 in micro batches of 2."""
    bench.train(tmp_path, "--training.steps", "1")
    checkpoint, plain = StageDirectory(tmp_path).checkpoints / "step-1", tmp_path / "plain.pt"
    dcp_to_torch_save(checkpoint, plain)
    weights = torch.load(plain, weights_only=False)
    weights["norm.weight"][0] = torch.nan
    torch.save(weights, plain)
    torch_save_to_dcp(plain, checkpoint)
    errors = bench.train(tmp_path, check=False)
    assert "the loss of step 2 is not finite (rank 0, samples 8-9, 10-11, 12-13, 14-15)" in errors
    assert checkpoints(tmp_path) == {"step-1"}
