"""Which checkpoints a training keeps, and goes on from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import pdforge.titan  # noqa: F401 - prepares torchtitan for this device
from pdforge.titan.checkpoints import StageCheckpoints

pytestmark = pytest.mark.usefixtures("alone")


def _of(folder: Path, model: torch.nn.Module, keep: int = 3, hold: tuple[int, ...] = ()) -> StageCheckpoints:
    config = StageCheckpoints.Config(enable=True, folder=".", interval=1, keep_latest_k=keep, hold=hold)
    parts = dict.fromkeys(("dataloader", "optimizers", "lr_schedulers", "sd_adapter"))
    return StageCheckpoints(config, model_parts=[model], states={}, base_folder=str(folder), **parts)


def _save(folder: Path, *steps: int, keep: int = 3, hold: tuple[int, ...] = ()) -> set[str]:
    """Save at these steps a model whose weight is the step; what is there when all that is too old has gone."""
    model = torch.nn.Linear(1, 1)
    checkpoints = _of(folder, model, keep, hold)
    for step in steps:
        model.weight.data.fill_(step)
        assert checkpoints.save(step)
    checkpoints.close()
    return {path.name for path in folder.iterdir()}


def _loaded(folder: Path) -> int:
    """The step whose checkpoint is loaded."""
    model = torch.nn.Linear(1, 1)
    assert _of(folder, model).load()
    return int(model.weight.item())


def test_the_newest_are_kept_and_those_that_are_held(tmp_path: Path) -> None:
    assert _save(tmp_path, 1, 2, 3, 4, 5, keep=2, hold=(2,)) == {"step-2", "step-4", "step-5"}


def test_half_written_checkpoints_count_for_nothing(tmp_path: Path) -> None:
    _save(tmp_path, 500)
    for step in (740, 760, 780):
        shutil.copytree(tmp_path / "step-500", killed := tmp_path / f"step-{step}")
        (killed / ".metadata").unlink()
    assert {"step-500", "step-600"} <= _save(tmp_path, 600)
    assert _loaded(tmp_path) == 600
    # they go when they are older than all that is kept
    assert _save(tmp_path, 700, 800, 900, 1000) == {"step-800", "step-900", "step-1000"}


def test_the_checkpoint_just_saved_stays(tmp_path: Path) -> None:
    """Of a training that somebody took back to an earlier step."""
    _save(tmp_path, 400, 500, 600, 700)
    assert _save(tmp_path, 450) == {"step-450", "step-500", "step-600", "step-700"}


def test_a_copy_is_no_checkpoint(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)
    (tmp_path / "step-2").rename(tmp_path / "step-2.bak")
    assert _loaded(tmp_path) == 1
    assert _save(tmp_path, 3, 4, 5) == {"step-2.bak", "step-3", "step-4", "step-5"}
