"""Memory of trainings for `benchmarks/plan.py`: by arithmetic, by the deep check's tracker, and of real tensors."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pdforge.compile import write_stage
from pdforge.launch.deep import Looked, look_at
from pdforge.plan.build import make_plans
from pdforge.plan.jobs import TrainJob
from pdforge.plan.memory import training_memory
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes

_SIZES = (
    "student.architecture={hidden: 512, ffn: 1536, layers: 6, heads: 8, kv_heads: 4}",
    "data.sequence_length=512",
    "data.train_tokens=8M",
)
_REAL = Path(__file__).with_name("_real_memory.py")
_CPU = Profile(name="local", device="cpu", processes_per_node=1)
_GPUS = Profile(name="gpus", device="cuda", processes_per_node=8, gpu="H100")
SPREAD = (
    ("{data_shard: 8}",),
    ("{data_shard: 2, data_replicate: 4}",),
    ("{data_shard: 1, data_replicate: 8}",),
    ("{tensor: 2}",),
    ("{data_replicate: 2, tensor: 4}",),
    ("{context: 2}",),
    ("{pipeline: 2}", "training.batch={global: 64, micro: 4}"),
    ("{pipeline: 2, tensor: 2}", "training.batch={global: 64, micro: 4}"),
)
"""Ways to spread a model over eight processes."""
QUICKSTART = (
    (),
    ("training.batch={global: 16, micro: 4}",),
    ("training.batch={global: 16, micro: 16}",),
    ("training.loss_chunks=4",),
    ("training.activation_checkpointing=selective",),
    ("training.activation_checkpointing=full",),
    ("training.precision=bfloat16",),
    ("objective.alpha=0",),
)
"""What is changed of the quickstart's student, on one process."""


def static_off() -> float:
    """Parameters, gradients and optimizer state by arithmetic against the tracker: the worst of all spreads."""
    plans = []
    for spread, *more in SPREAD:
        batch = [] if more else ["training.batch={global: 64, micro: 2}"]
        plans.append(_student([*_SIZES, f"training.parallelism={spread}", *batch, *more], _GPUS, variant="lm"))
    return max(abs(training_memory(_job(plan)).static / each.static - 1) for plan, each in _traced(plans))


def peaks_off() -> tuple[float, float]:
    """Peaks by the tracker, on fake tensors, against those of real steps: the worst of all, and the median."""
    plans = [_student(overrides, _CPU) for overrides in QUICKSTART]
    off = [abs(each.total / _real_peak(plan) - 1) for plan, each in _traced(plans)]
    return max(off), statistics.median(off)


def _real_peak(plan: Plan) -> int:
    with tempfile.TemporaryDirectory() as root:
        directory = write_stage(plan.training, Path(root)).path
        done = subprocess.run([sys.executable, _REAL, directory], check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def _student(overrides: Sequence[str], profile: Profile, *, variant: str = "pd") -> Plan:
    """The quickstart's student alone."""
    loaded = load_recipes("quickstart", variants=(variant,), overrides=list(overrides))
    [plan] = make_plans(loaded, profile, Path("/none"))
    return plan.model_copy(update={"stages": [plan.training]})


def _job(plan: Plan) -> TrainJob:
    job = plan.training.job
    assert isinstance(job, TrainJob)
    return job


def _traced(plans: Sequence[Plan]) -> list[tuple[Plan, Looked]]:
    """One after another: plans that differ in no result have one key."""
    found = []
    for plan in plans:
        [looked] = look_at([plan])
        if looked.error:
            raise RuntimeError(looked.error)
        found.append((plan, looked))
    return found
