"""`plan --deep`: the real trainer at its real size, on fake tensors; and what it says where that cannot be built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.launch.deep import Looked, findings, look_at
from pdforge.plan.build import make_plans
from pdforge.plan.jobs import TrainJob
from pdforge.plan.memory import TEACHER, training_memory, weights_beside
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes
from tests.plan.conftest import FINETUNE

SIZES = (
    "student.architecture={hidden: 512, ffn: 1536, layers: 6, heads: 8, kv_heads: 4}",
    "data.sequence_length=512",
    "data.train_tokens=4M",
    "training.loss_chunks=8",
    "training.batch={global: 64, micro: 2}",
)


def planned(root: Path, *overrides: str, processes: int = 8, memory: str = "80GB") -> Plan:
    recipe = Path(__file__).parents[1] / "tiny.yaml"
    profile = Profile(name="gpus", device="cuda", processes_per_node=processes, gpu_memory=memory, peak_flops=1e15)  # type: ignore[arg-type]
    loaded = load_recipes(str(recipe), variants=("lm",), overrides=[*SIZES, *overrides])
    [plan] = make_plans(loaded, profile, root)
    return plan


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("training.parallelism={data_replicate: 2, tensor: 2}",),
        ("training.parallelism={context: 2}", "training.activation_checkpointing=full"),
    ],
)
def test_the_tracer_and_arithmetic_agree(overrides: tuple[str, ...], tmp_path: Path) -> None:
    plan = planned(tmp_path, *overrides)
    [looked] = look_at([plan])
    assert looked.error == ""
    assert isinstance(plan.training.job, TrainJob)
    counted = training_memory(plan.training.job)
    assert looked.static == pytest.approx(counted.static, rel=0.01)
    # arithmetic has a block that is fetched ahead, which only CUDA does
    assert 0.95 * looked.total <= counted.total <= 1.2 * looked.total
    assert list(findings([looked], plan)) == []


@pytest.mark.slow
def test_a_teacher_beside_a_fine_tuned_student(tmp_path: Path) -> None:
    """Its rows go through the real loss; its weights, which are not there, are counted."""
    more = (
        "finetune.training.batch={global: 64, micro: 2}",
        "finetune.instruction_tokens=300k",
        "teacher.model.training={steps: 20, batch: {global: 16, micro: 2}, tokens: null}",
    )
    plan = planned(tmp_path, FINETUNE, *more, "finetune.objective={alpha: 0.5, temperature: 2}")
    stage = plan.stage("finetune")
    assert stage is not None
    assert isinstance(stage.job, TrainJob)
    [looked] = look_at([plan.model_copy(update={"stages": [stage]})])
    assert looked.error == ""
    assert looked.peak[TEACHER] == weights_beside(stage.job) > 0
    counted = training_memory(stage.job)
    assert 0.95 * looked.total <= counted.total <= 1.2 * looked.total


@pytest.mark.slow
def test_of_a_pipeline_the_static_part_is_known(tmp_path: Path) -> None:
    uneven = ("student.architecture={hidden: 512, ffn: 1536, layers: 7, heads: 8, kv_heads: 4}",)
    spread = "training.parallelism={pipeline: 2, pipeline_schedule: interleaved_1f1b}"
    plan = planned(tmp_path, *uneven, spread, "training.batch={global: 64, micro: 4}")
    [looked] = look_at([plan])
    assert looked.error == ""
    assert isinstance(plan.training.job, TrainJob)
    assert looked.static == pytest.approx(training_memory(plan.training.job).static, rel=0.01)
    assert looked.peak == {}
    assert "not traced" in looked.line()


@pytest.mark.slow
def test_what_torchtitan_refuses_is_a_finding(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    job = plan.training.job
    assert isinstance(job, TrainJob)
    uneven = job.model_copy(update={"architecture": job.architecture.model_copy(update={"heads": 7})})
    stage = plan.training.model_copy(update={"job": uneven})
    broken = plan.model_copy(update={"stages": [stage]})
    [looked] = look_at([broken])
    assert looked.error
    [found] = findings([looked], broken)
    assert found.code == "PD174"
    assert "Traceback" not in found.message
    assert found.help


def test_a_peak_above_the_memory_is_refused_with_a_way_out(tmp_path: Path) -> None:
    plan = planned(tmp_path, memory="1GB")
    looked = Looked(plan.training, {"activations": 2 * 10**9}, 10**6, "")
    [found] = findings([looked], plan)
    assert found.code == "PD173"
    assert found.help
    assert "peak 1.86 GiB" in looked.line()
    assert json.loads(json.dumps(looked.figures()))["peak"] == 2 * 10**9
