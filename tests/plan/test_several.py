"""Several teachers of one student: stages, identities, figures, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.compile.stage import write_stage
from pdforge.errors import RecipeError
from pdforge.plan.jobs import CaptureJob, TrainJob
from pdforge.plan.make_page import make_page
from pdforge.plan.memory import training_memory
from pdforge.plan.model import Plan
from pdforge.recipe.load import load_recipes
from pdforge.report.gather import gather
from tests.plan.conftest import CPU, MakePlans

FIRST = (
    "model: {kind: pretrain, architecture: {hidden: 64, ffn: 128, layers: 4, heads: 4}, training: {tokens: 10k, "
    "batch: {global: 8, micro: 2}, learning_rate_schedule: {schedule: wsd, warmup: 10%, decay: 20%}, "
    "checkpoint: {every: 10}}}, truncation: {top_p: 0.9, top_k: 20}"
)
"""The teacher of the recipe that all plans here start from."""
SECOND = FIRST.replace("hidden: 64", "hidden: 48").replace("top_k: 20", "top_k: 30")


def teachers(*weighted: tuple[float, str]) -> tuple[str, str]:
    """The overrides that give a student these teachers."""
    listed = ", ".join(f"{{weight: {weight}, {teacher}}}" for weight, teacher in weighted)
    return "teacher=null", f"teachers=[{listed}]"


BOTH = teachers((0.7, FIRST), (0.3, SECOND))


def job(plan: Plan) -> TrainJob:
    assert isinstance(plan.training.job, TrainJob)
    return plan.training.job


def test_each_teacher_has_its_own_store(plans: MakePlans) -> None:
    [alone], [plan] = plans(), plans(*BOTH)
    assert [stage.title for stage in plan.stages] == [
        "tokenize",
        "pretrain teacher 1",
        "capture logits of teacher 1",
        "pretrain teacher 2",
        "capture logits of teacher 2",
        "train pd",
    ]
    # the first's stages are those of the student that learns of it alone
    assert [stage.key for stage in plan.stages[:3]] == [stage.key for stage in alone.stages[:3]]
    assert plan.captures == [plan.stages[2], plan.stages[4]]
    assert plan.teachers == [plan.stages[1], plan.stages[3]]
    assert plan.training.needs == [plan.stages[0].key, *(stage.key for stage in plan.captures)]
    found = job(plan)
    assert found.stores == [stage.job.output for stage in plan.captures if isinstance(stage.job, CaptureJob)]
    assert (found.weight, [each.weight for each in found.also]) == (0.7, [0.3])
    assert [each.top_k for each in found.learnt] == [20, 30]  # type: ignore[union-attr]


def test_one_in_the_list_is_the_teacher(plans: MakePlans) -> None:
    [alone], [listed] = plans(), plans(*teachers((1, FIRST)))
    assert [stage.key for stage in alone.stages] == [stage.key for stage in listed.stages]
    assert (alone.hash, job(alone).kin) == (listed.hash, job(listed).kin)


@pytest.mark.parametrize(
    "others",
    [
        teachers((0.6, FIRST), (0.4, SECOND)),
        teachers((0.3, FIRST), (0.7, SECOND)),
        teachers((0.7, FIRST), (0.3, SECOND.replace("hidden: 48", "hidden: 32"))),
        teachers((0.7, FIRST), (0.3, SECOND.replace("top_k: 30", "top_k: 20"))),
        teachers((0.7, FIRST), (0.2, SECOND), (0.1, SECOND)),
    ],
)
def test_weights_and_every_teacher_count(plans: MakePlans, others: tuple[str, str]) -> None:
    [before], [after] = plans(*BOTH), plans(*others)
    assert job(before).identity != job(after).identity
    assert job(before).kin != job(after).kin
    assert before.stages[2].key == after.stages[2].key


def test_without_weight_on_distillation_teachers_are_no_part(plans: MakePlans) -> None:
    [alone], [plan] = plans(variants=("lm",)), plans(*BOTH, variants=("lm",))
    assert [stage.key for stage in plan.stages] == [stage.key for stage in alone.stages]
    assert job(plan).also == ()


def test_a_store_that_holds_more_serves_each_place(plans: MakePlans, recipe: Path, tmp_path: Path) -> None:
    """A longer run captures more of both teachers: the shorter one, planned with it, reads those stores."""
    lossless = [each.replace("truncation", "logits: {codec: lossless}, truncation") for each in (FIRST, SECOND)]
    both = teachers((0.7, lossless[0]), (0.3, lossless[1]))
    text = recipe.read_text().replace("  pd: {}", "  pd: {}\n  short: {training: {tokens: 6k}}")
    recipe.write_text(text)
    long, short = plans(*both, variants=("pd", "short"))
    assert short.captures == long.captures
    assert job(short).stores == job(long).stores
    assert "same teacher and tokens" in short.reuses


def test_the_compiled_job_reads_both(plans: MakePlans, tmp_path: Path) -> None:
    [plan] = plans(*BOTH)
    module = write_stage(plan.training, tmp_path / "runs").train_module.read_text()
    first, second = job(plan).stores
    assert f"logits={first!r}" in module.replace('"', "'")
    assert f"also=(({second!r}, 0.9, 30),)," in module.replace('"', "'")
    assert "weights=(0.7, 0.3)" in module
    [alone] = plans()
    assert "also=" not in write_stage(alone.training, tmp_path / "other").train_module.read_text()


def test_figures_count_every_teacher(plans: MakePlans, tmp_path: Path) -> None:
    [alone], [plan] = plans(), plans(*BOTH)
    page = make_page([plan], tmp_path)
    assert [model.role for model in page.models] == ["teacher 1", "teacher 2", "student"]
    gpus = CPU.model_copy(update={"device": "cuda"})
    one, two = (plans(*more, profile=gpus)[0] for more in ((), BOTH))
    entries = [
        next(part.bytes for part in training_memory(job(each)).parts if part.name == "teacher") for each in (one, two)
    ]
    assert entries == [2 * 4 * (1 + 2 * 20) * 2 * 64, 2 * 4 * (1 + 2 * 2 * 30) * 2 * 64]
    [single, several] = gather([alone, plan], tmp_path).runs
    assert single.teacher_flops is not None
    assert several.teacher_flops is not None
    assert several.teacher_flops > single.teacher_flops
    assert len(several.further_stores) == 1
    assert len(gather([plan], tmp_path).teachers) == 2


LIVE, ODD = "logits: {mode: live}", SECOND.replace("heads: 4", "heads: 7")


@pytest.mark.parametrize(
    ("overrides", "code", "field", "remedy"),
    [
        (teachers((0.7, FIRST), (0.2, SECOND)), "PD147", "teachers.0.weight", "0.7778, 0.2222"),
        (teachers((0, FIRST), (0, SECOND)), "PD147", "teachers.0.weight", "sum to 1"),
        (teachers((0.5, FIRST), (0.5, SECOND))[1:], "PD147", "teachers", "teacher: null"),
        (
            teachers((0.5, FIRST), (0.5, f"{SECOND}, logits: {{mode: live}}")),
            "PD148",
            "teachers.1.logits.mode",
            "offline",
        ),
        (teachers((0.5, FIRST), (1.5, SECOND)), "PD005", "teachers.1.weight", ""),
        (
            teachers((0.5, FIRST), (0.5, SECOND.replace("heads: 4", "heads: 7"))),
            "PD101",
            "teachers.1.model.architecture.heads",
            "",
        ),
        (teachers((1, FIRST.replace("top_k: 20", "top_k: 400"))), "PD005", "teachers.0.truncation.top_k", ""),
    ],
)
def test_what_cannot_be_is_refused(
    recipe: Path, overrides: tuple[str, ...], code: str, field: str, remedy: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipes(str(recipe), variants=("pd",), overrides=overrides)
    found = [each for each in caught.value.diagnostics if each.code == code]
    assert [each.field for each in found] == [field]
    assert remedy in found[0].help
