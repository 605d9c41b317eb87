"""`plan --deep`: builds every training of a plan at its real size, in a process of its own that imports torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pdforge.compile import write_stage
from pdforge.environment import require_training_packages
from pdforge.launch.local import cores
from pdforge.plan.advice import Advice
from pdforge.plan.fitting import ROOM, ways_to_fit
from pdforge.plan.jobs import TrainJob
from pdforge.plan.memory import TEACHER, heaviest_rank, training_memory, weights_beside
from pdforge.plan.model import Plan, Stage, merged_stages
from pdforge.recipe.rules.planning import TIGHT, TOO_LARGE, UNBUILDABLE

_GIB = float(1 << 30)
_MOST_AT_ONCE = 4


class Looked(NamedTuple):
    """A training stage that was built at its real size.

    Attributes:
        stage: which.
        peak: bytes of a GPU by what they are for, at the peak; empty: not known.
        static: bytes of parameters, gradients and optimizer.
        error: why it cannot be built; empty: it can.
    """

    stage: Stage
    peak: dict[str, int]
    static: int
    error: str

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.peak.values())

    def figures(self) -> dict[str, object]:
        """For programs."""
        return {
            "stage": self.stage.key,
            "title": self.stage.title,
            "processes": self.stage.processes,
            "peak": self.total if self.peak else None,
            "components": self.peak,
            "static": self.static,
            "error": self.error,
        }

    def line(self) -> str:
        """For people."""
        title = f"{self.stage.title}, {self.stage.processes} processes"
        if self.error:
            return f"{title}: cannot be built: {self.error}"
        assert isinstance(self.stage.job, TrainJob)
        counted = training_memory(self.stage.job)
        static = f"parameters, gradients, optimizer {self.static / _GIB:.2f} GiB"
        if not self.peak:
            return f"{title}: builds; {static}; of a pipeline the peak is not traced"
        parts = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in self.peak.items() if size >= 0.01 * _GIB)
        return f"{title}: builds; peak {self.total / _GIB:.2f} GiB (arithmetic {counted.total / _GIB:.2f}): {parts}"


def look_at(plans: Iterable[Plan]) -> list[Looked]:
    """Build every training stage of the plans, each in one process on this machine's CPU, as many at once as it has
    cores and at most four: each takes about 1 GB.

    Raises:
        EnvironmentFault: torch or torchtitan is missing here.
    """
    require_training_packages()
    stages = [stage for stage in merged_stages(plans) if isinstance(stage.job, TrainJob)]
    at_once = min(_MOST_AT_ONCE, cores())
    with tempfile.TemporaryDirectory(prefix="pdforge-deep-") as folder, ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda stage: _look(stage, Path(folder)), stages))


def _look(stage: Stage, root: Path) -> Looked:
    assert isinstance(stage.job, TrainJob)
    directory, rank = write_stage(stage, root), heaviest_rank(stage.job)
    command = [sys.executable, "-m", "pdforge.stages.deep", str(directory.path), str(rank)]
    # no device is touched, and none is to be waited for
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        found = {"error": f"exit code {done.returncode}: {last}"}
    peak = found.get("peak", {})
    if peak and (beside := weights_beside(stage.job)):
        # its weights are not there to be loaded: arithmetic
        peak[TEACHER] = beside
    return Looked(stage, peak, found.get("static", 0), found.get("error", ""))


def findings(looked: Iterable[Looked], plan: Plan) -> Iterator[Advice]:
    """What was found wrong with a plan."""
    mine = {stage.key for stage in plan.stages}
    offered = plan.profile.memory_of_a_gpu if plan.profile.device == "cuda" else None
    for each in looked:
        job = each.stage.job
        if each.stage.key not in mine or not isinstance(job, TrainJob):
            continue
        part = job.place
        if each.error:
            yield Advice(
                UNBUILDABLE,
                f"{part}.parallelism",
                f"{each.stage.title} cannot be built on {each.stage.processes} processes: {each.error}",
                "change the degrees of parallelism, the batch or the model's shape",
            )
        elif offered is not None and each.total > (1 - ROOM) * offered:
            ways = " or ".join(f"{part}.{way}" for way in ways_to_fit(job, plan.recipe, offered))
            yield Advice(
                TOO_LARGE if each.total > offered else TIGHT,
                f"{part}.batch.micro",
                f"{each.stage.title}, built at its real size, needs {each.total / _GIB:.1f} GiB of a GPU's "
                f"{offered / _GIB:.1f} GiB, micro batch {job.training.batch.micro}",
                f"fits with {ways}" if ways else "spread the model over more GPUs, or take larger ones",
            )
