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
from tests.stages.conftest import pdforge, rows, torchrun

RECIPE = Path(__file__).with_name("parallel.yaml")


@dataclass(frozen=True)
class Bench:
    """A run on one process, and the means to train its student again otherwise.

    Attributes:
        root: storage root with the token store, the logit store and the run.
        seed: a checkpoint of the weights that the run began with.
    """

    root: Path
    seed: Path

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
        return _torchtitan(processes, directory, "--dump_folder", str(directory), *start, *options, check=check)


def checkpoints(directory: Path) -> set[str]:
    """Names of the whole checkpoints of a training."""
    return {path.parent.name for path in StageDirectory(directory).checkpoints.glob("*/.metadata")}


def _compiled(root: Path, processes: int, sets: tuple[str, ...]) -> StageDirectory:
    [plan] = make_plans(load_recipes(str(RECIPE), overrides=sets), local_profile(processes), root)
    stage = plan.stage("train")
    assert stage is not None
    return write_stage(stage, root)


def _torchtitan(processes: int, cwd: Path, *options: str, check: bool = True) -> str:
    common = ("--module", "train", "--config", "config")
    done = torchrun(processes, "pdforge.titan.train", *common, *options, cwd=cwd, check=check)
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    base = tmp_path_factory.mktemp("bench")
    root, seed = base / "runs", base / "seed"
    pdforge("run", RECIPE, "--root", root, "--processes", "1")
    job = _compiled(root, 1, ()).job
    _torchtitan(1, job, "--dump_folder", str(seed), "--checkpoint.create_seed_checkpoint")
    return Bench(root, StageDirectory(seed).checkpoints / "step-0")


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    os.environ.pop("MASTER_ADDR", None)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
