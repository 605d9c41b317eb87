"""Compares what a disturbed run left with what an undisturbed one leaves: every result, checkpoint and shard."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from pdforge.layout import StageDirectory, read_json
from tests.slurm import chain
from tests.slurm.harness import User
from tests.stages.conftest import results, rows

TRAININGS = ("pretrain-teacher", "train")


def check_light(user: User, options: Mapping[str, Any]) -> dict[str, int]:
    """Of a run of `chain.py`: how much was found equal, by what it is."""
    assert_done(user)
    for kind in TRAININGS:
        stage = user.stage(kind)
        assert chain.read_rows(stage) == chain.rows(options["steps"])
        assert read_json(stage.output / "checkpoint.json") == chain.rows(options["steps"])[-1]
    for kind in ("tokenize", "capture"):
        for number in range(options["shards"]):
            assert read_json(chain.shard(user.stage(kind).output, number)) == {"digest": chain.link("", number)}
    return {"light trainings": len(TRAININGS), "light shards": 2 * options["shards"]}


def check_real(user: User, root: Path) -> dict[str, int]:
    """Of a run of the tiny recipe, against an undisturbed one below `root`: how much was found equal."""
    assert_done(user)
    checkpoints = 0
    for kind in TRAININGS:
        stage, other = user.stage(kind), counterpart(user, kind, root)
        assert rows(stage) == rows(other)
        assert results(stage)["heldout_loss"] == results(other)["heldout_loss"]
        checkpoints += compare_checkpoints(stage, other)
    for kind in ("tokenize", "capture"):
        mine, other = manifest(user.stage(kind)), manifest(counterpart(user, kind, root))
        assert mine == other, "it holds the checksum of every shard"
    shards = len(mine["shard_files"])
    user.pdforge("store", "verify")
    return {"real trainings": len(TRAININGS), "real checkpoints": checkpoints, "real shards": shards}


def assert_done(user: User) -> None:
    assert {stage["state"] for stage in user.stages().values()} == {"done"}, user.describe()


def counterpart(user: User, kind: str, root: Path) -> StageDirectory:
    """The same stage below another storage root."""
    return StageDirectory(root / user.stage(kind).path.relative_to(user.root))


def manifest(stage: StageDirectory) -> dict[str, Any]:
    """What the manifest of a stage's store says."""
    content: dict[str, Any] = read_json(stage.output / "manifest.json")["content"]
    return content


def compare_checkpoints(stage: StageDirectory, other: StageDirectory) -> int:
    """Read every checkpoint of a stage, and compare with those of the same step: their number."""
    found = sorted(stage.checkpoints.glob("step-*"))
    common = 0
    for folder in found:
        content, same = load(folder), other.checkpoints / folder.name
        if same.is_dir():
            common += 1
            assert_equal(content, load(same), folder.name)
    assert common, (stage.path, "no checkpoint in common")
    return len(found)


def load(checkpoint: Path) -> Any:
    """All of a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "whole.pt"
        dcp_to_torch_save(checkpoint, file)
        return torch.load(file, weights_only=False)


def assert_equal(one: Any, two: Any, where: str) -> None:
    """Bit for bit, through dictionaries and lists."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_equal(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for number, (left, right) in enumerate(zip(one, two, strict=True)):
            assert_equal(left, right, f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    else:
        assert one == two, where
