from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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


def test_torchtitans_trackers_show_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    """TensorBoard's own reader finds every part of the objective; Weights & Biases, offline, keeps the run's name."""
    for variable in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_RUN_NAME", "WANDB_RESUME", "MASTER_ADDR"):
        monkeypatch.setenv(variable, "")  # so that what it sets here ends with the test
        monkeypatch.delenv(variable)
    for variable, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(variable, value)
    stage = tmp_path / "small-pd-0123" / "train"
    stage.mkdir(parents=True)
    config = StageMetrics.Config(
        stage="train", steps=2, tokens_per_step=100, enable_tensorboard=True, enable_wandb=True
    )
    whole = SimpleNamespace(pp_enabled=False, non_data_parallel_size=1)
    metrics = StageMetrics(config, dump_folder=str(stage), parallel_dims=whole)
    metrics.num_flops_per_token, metrics.data_loading_times = 1, [0.0]
    metrics.parts = lambda: {"kd_loss": 2.5, "alpha": 0.75}
    metrics.log(1, 3.0, 3.0, 1.0, {"lr/group0": 0.1})
    metrics.log_validation(4.0, 1)
    metrics.close()
    (events,) = {file.parent for file in stage.glob("tb/*/events*")}
    found = EventAccumulator(str(events)).Reload()
    for tag, value in (("distillation/kd_loss", 2.5), ("distillation/alpha", 0.75), ("validation_metrics/loss", 4.0)):
        assert [(each.step, each.value) for each in found.Scalars(tag)] == [(1, value)]
    assert list(stage.glob("tb/*/wandb/offline-run-*-small-pd-0123-train/run-small-pd-0123-train.wandb"))
