from __future__ import annotations

import json
from pathlib import Path

import pytest

import pdforge.titan  # noqa: F401 - prepares torchtitan for this device
from pdforge.layout import StageDirectory
from pdforge.titan.metrics import StageMetrics


@pytest.fixture
def metrics(tmp_path: Path) -> StageMetrics:
    processor = object.__new__(StageMetrics)
    processor.config = StageMetrics.Config(stage="train", steps=10, tokens_per_step=100)
    processor._directory = StageDirectory(tmp_path)
    processor._writes, processor._started, processor._reported, processor._lm_loss = True, None, 0.0, None
    return processor


def test_rows_behind_the_checkpoint_are_dropped(metrics) -> None:
    path = metrics._directory.metrics
    rows = [json.dumps({"step": step, "loss": 1.0}) for step in range(1, 7)]
    # the last row was cut short by a kill
    path.write_text("\n".join(rows) + '\n{"step": 7, "lo')
    metrics.resume(4)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


def test_what_was_measured_after_the_checkpoint_is_measured_again(metrics) -> None:
    rows = [{"step": 4, "loss": 1.0}, {"step": 4, "heldout_loss": 2.0}, {"step": 2, "heldout_loss": 2.0}]
    metrics._directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics.resume(4)
    assert [json.loads(line) for line in metrics._directory.metrics.read_text().splitlines()] == [rows[0], rows[2]]


def test_progress_says_where_training_begins(metrics) -> None:
    metrics.resume(4)
    progress = json.loads(metrics._directory.progress.read_text())
    assert (progress["step"], progress["of"], progress["unit"], progress["loss"]) == (4, 10, "steps", None)
