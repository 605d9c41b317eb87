"""One small run's stores and seed checkpoint, and training on them with torchrun under any parallelism."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pdforge.compile.stage import write_stage
from pdforge.layout import StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes
from tests.stages.conftest import pdforge, rows
from tests.titan.ranks import Ranks

RECIPE = Path(__file__).with_name("parallel.yaml")


@dataclass(frozen=True)
class Bench:
    """A run on one process, and the means to train its student again otherwise.

    Attributes:
        root: storage root with the token store, the logit store and the run.
        seed: a checkpoint of the weights that the run began with.
        ranks: starts processes.
    """

    root: Path
    seed: Path
    ranks: Ranks

    @property
    def straight(self) -> list[dict[str, Any]]:
        """Rows of the run on one process."""
        return rows(_compiled(self.root, 1, ()))

    def train(
        self,
        directory: Path,
        *options: str,
        processes: int = 1,
        sets: tuple[str, ...] = (),
        check: bool = True,
        seeded: bool = True,
    ) -> str:
        """Compile the recipe with fields set, and train from `directory`'s newest checkpoint; where there is none, from
        the seed or, not `seeded`, from where the recipe says.

        Returns:
            What the processes wrote.
        """
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(_compiled(self.root, processes, sets).train_module, directory / "train.py")
        start = ("--checkpoint.initial_load_path", str(self.seed)) if seeded else ()
        return _torchtitan(self.ranks, directory, *start, *options, processes=processes, check=check)


def checkpoints(directory: Path) -> set[str]:
    """Names of the whole checkpoints of a training."""
    return {path.parent.name for path in StageDirectory(directory).checkpoints.glob("*/.metadata")}


def _compiled(root: Path, processes: int, sets: tuple[str, ...]) -> StageDirectory:
    [plan] = make_plans(load_recipes(str(RECIPE), overrides=sets), local_profile(processes), root)
    stage = plan.stage("train")
    assert stage is not None
    return write_stage(stage, root)


def _torchtitan(ranks: Ranks, directory: Path, *options: str, processes: int = 1, check: bool = True) -> str:
    """Train by the module in a directory, which has the results then."""
    common = ("--module", "train", "--config", "config", "--dump_folder", str(directory))
    code, output = ranks.run(processes, directory, *common, *options)
    assert not check or code == 0, output[-4000:]
    return output


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    base = tmp_path_factory.mktemp("bench")
    root, seed = base / "runs", base / "seed"
    pdforge("run", RECIPE, "--root", root, "--processes", "1")
    seed.mkdir()
    shutil.copy(_compiled(root, 1, ()).train_module, seed)
    ranks = Ranks()
    _torchtitan(ranks, seed, "--checkpoint.create_seed_checkpoint")
    yield Bench(root, StageDirectory(seed).checkpoints / "step-0", ranks)
    ranks.close()


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    os.environ.pop("MASTER_ADDR", None)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
