"""A teacher beside the student as it is fine-tuned: its stages, what names it, what it costs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.diagnostics import Diagnostic, Severity
from pdforge.errors import RecipeError
from pdforge.plan.curves import curves
from pdforge.plan.jobs import ModelSource, TrainJob
from pdforge.plan.make_page import make_page
from pdforge.plan.memory import TEACHER, training_memory, weights_beside
from pdforge.plan.model import Plan, Stage
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes
from pdforge.recipe.models import Recipe
from pdforge.recipe.sizes import parameter_count
from pdforge.report.gather import gather
from pdforge.review.diff import compare
from tests.plan.conftest import FINETUNE, MakePlans
from tests.plan.test_chain import CHAIN
from tests.plan.test_several import BOTH

TAUGHT = (FINETUNE, "finetune.objective={alpha: 0.5, temperature: 2}")
SMALL = "{hidden: 48, ffn: 96, layers: 3, heads: 4}"
OTHER = (
    f"finetune.teacher={{model: {{kind: pretrain, architecture: {SMALL}, training: {{tokens: 8k, "
    "batch: {global: 8, micro: 2}, checkpoint: {every: 10}}}, truncation: {top_k: 30}}"
)
GPU = Profile(name="gpu", device="cuda", processes_per_node=1)


def finetune(plan: Plan) -> tuple[Stage, TrainJob]:
    stage = plan.stage("finetune")
    assert stage is not None
    assert isinstance(stage.job, TrainJob)
    return stage, stage.job


def titles(plan: Plan) -> list[str]:
    return [stage.title for stage in plan.stages]


def errors(error: RecipeError) -> list[Diagnostic]:
    return [each for each in error.diagnostics if each.severity is Severity.ERROR]


def test_the_students_teacher_runs_beside_it(plans: MakePlans) -> None:
    [plain], [plan] = plans(FINETUNE), plans(*TAUGHT)
    assert titles(plan) == titles(plain), "nothing is captured for it"
    stage, job = finetune(plan)
    [teacher] = plan.teachers
    assert set(stage.needs) == {*finetune(plain)[0].needs, teacher.key}
    assert isinstance(job.teacher, ModelSource)
    assert job.teacher.checkpoint.endswith(f"{teacher.directory}/output/checkpoint")
    assert job.truncation == plan.recipe.teacher.truncation if plan.recipe.teacher else False
    assert (job.stores, job.first_sample, job.teacher_precision) == ([], 0, "bfloat16")
    # before it nothing changes
    assert [each.key for each in plan.stages if each.kind != "finetune"] == [
        each.key for each in plain.stages if each.kind != "finetune"
    ]


@pytest.mark.parametrize(
    "mode", ["{mode: live}", "{mode: offline}", "{mode: online, from_step: 3}", "{keep: {top_p: 1.0, top_k: 200}}"]
)
def test_its_teacher_is_trained_once_whatever_the_mode(plans: MakePlans, mode: str) -> None:
    [plan] = plans(*TAUGHT, "training.tokens=4k", f"teacher.logits={mode}")
    _, job = finetune(plan)
    assert [stage.kind for stage in plan.stages].count("pretrain-teacher") == 1
    assert (job.teacher is not None, job.first_sample) == (True, 0)


def test_it_may_be_the_only_one_to_learn(plans: MakePlans) -> None:
    """A student without distillation before: its teacher is trained for the fine-tuning, and counts there only."""
    [plain], [plan] = plans(FINETUNE, variants=("lm",)), plans(*TAUGHT, variants=("lm",))
    assert titles(plan) == ["tokenize", "train lm", "pretrain teacher", "tokenize conversations", "fine-tune lm"]
    assert plan.training.key == plain.training.key
    [other] = plans(*TAUGHT, "teacher.model.training.seed=4", variants=("lm",))
    assert other.training.identity == plan.training.identity
    assert finetune(other)[0].identity != finetune(plan)[0].identity
    assert other.hash != plan.hash


def test_a_chain_ends_at_its_assistant(plans: MakePlans) -> None:
    [plan] = plans(CHAIN, *TAUGHT)
    stage, job = finetune(plan)
    [assistant] = plan.teachers
    assert assistant.title == "distil assistant"
    assert assistant.key in stage.needs
    assert job.teacher is not None
    assert job.teacher.place == "teacher.model"
    assert len(titles(plan)) == len(set(titles(plan)))
    # and where only fine-tuning learns from it, the whole chain comes before that
    [alone] = plans(CHAIN, *TAUGHT, variants=("lm",))
    assert set(titles(plan)) - set(titles(alone)) == {"capture logits of assistant", "train pd", "fine-tune pd"}


def test_another_teacher_for_fine_tuning(plans: MakePlans) -> None:
    [plan], [shared] = plans(*TAUGHT, OTHER), plans(*TAUGHT)
    stage, job = finetune(plan)
    [theirs] = [each for each in plan.stages if each.title == "pretrain teacher of fine-tuning"]
    assert theirs.key in stage.needs
    assert plan.teachers[0].key not in stage.needs
    assert isinstance(theirs.job, TrainJob)
    assert theirs.job.place == "finetune.teacher.model.training"
    assert job.truncation is not None
    assert job.truncation.model_dump()["top_k"] == 30
    assert plan.training.key == shared.training.key
    assert stage.identity != finetune(shared)[0].identity


def test_of_several_teachers_one_must_be_named(plans: MakePlans) -> None:
    with pytest.raises(RecipeError) as caught:
        plans(*BOTH, *TAUGHT)
    [found] = errors(caught.value)
    assert (found.code, found.field) == ("PD131", "finetune.objective.alpha")
    assert "finetune.teacher" in found.help
    [plan] = plans(*BOTH, *TAUGHT, OTHER)
    assert "pretrain teacher of fine-tuning" in titles(plan)


IDENTITY = [
    ("finetune.objective.alpha", "0.6", True),
    ("finetune.objective.alpha", "{schedule: wsd, peak: 0.5}", True),
    ("finetune.objective.temperature", "1", True),
    ("finetune.objective.loss.kind", "nll", True),
    ("finetune.objective.tail", "ghost", True),
    ("finetune.objective.token_filter", "{skip_lowest_entropy: 15%}", True),
    ("finetune.teacher.truncation.top_k", "40", True),
    ("finetune.teacher.truncation", "{kind: sample, draws: 20}", True),
    ("finetune.teacher.model.training.seed", "3", True),
    ("finetune.teacher.model.training.batch.micro", "4", False),
    ("finetune.training.precision", "float32", True),
    ("finetune.training.loss_chunks", "4", False),
    ("teacher.truncation.top_k", "10", True),  # of its student
]


@pytest.mark.parametrize(("field", "value", "counts"), IDENTITY, ids=[f"{f}={v}" for f, v, _ in IDENTITY])
def test_identity(plans: MakePlans, field: str, value: str, counts: bool) -> None:
    base = (FINETUNE, "finetune.objective={alpha: 0.5}", OTHER)
    if field == "finetune.objective.temperature":
        base = (*TAUGHT, OTHER)
    [before], [after] = plans(*base), plans(*base, f"{field}={value}")
    assert (finetune(before)[1].identity != finetune(after)[1].identity) == counts
    assert before.hash != after.hash or not counts


def test_without_weight_it_is_plain_fine_tuning(plans: MakePlans) -> None:
    [plain], [plan] = plans(FINETUNE), plans(FINETUNE, "finetune.objective={alpha: 0, temperature: 3}")
    assert finetune(plan)[0].key == finetune(plain)[0].key
    assert titles(plan) == titles(plain)


def test_the_plan_shows_its_schedules_memory_and_cost(plans: MakePlans, tmp_path: Path) -> None:
    sets = (FINETUNE, "finetune.objective={alpha: {schedule: wsd, peak: 0.5}, temperature: 2}")
    [plain], [plan] = plans(FINETUNE, profile=GPU), plans(*sets, profile=GPU, variants=("lm",))
    (before, without), (after, job) = finetune(plain), finetune(plan)
    assert [curve.name for curve in curves(job)] == ["α", "τ", "learning rate"]
    assert [curve.name for curve in curves(without)] == ["learning rate"]
    teacher = plan.recipe.teacher
    assert teacher is not None
    assert teacher.model.architecture is not None
    weights = parameter_count(teacher.model.architecture, 300).total
    assert weights_beside(job) == 2 * weights, "bfloat16, whole on one device"
    entries = 2 * 4 * (1 + 2 * 20) * job.training.batch.micro * 64
    assert dict(training_memory(job).parts)[TEACHER] == 2 * weights + entries
    flops, alone = plan.figures.stages[after.key].flops, plain.figures.stages[before.key].flops
    assert flops is not None
    assert alone is not None
    assert flops > alone
    page = make_page([plan], tmp_path)
    assert (page.models[0].role, page.models[0].parameters) == ("teacher", weights)
    [shown] = [step for step in page.stages if step.kind == "finetune"]
    assert [curve.name for curve in shown.curves] == ["α", "τ", "learning rate"]
    assert shown.memory is not None


def test_over_several_devices_its_layers_are_shards(plans: MakePlans) -> None:
    sets = (*TAUGHT, "finetune.training.precision=float32", "teacher.model.architecture.layers=16")
    sizes = [weights_beside(finetune(plans(*sets, profile=GPU.with_processes(n))[0])[1]) for n in (1, 2, 4)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


FOUND = [
    ("finetune.objective={alpha: 0.5, loss: {kind: jsd}}", "finetune.teacher.truncation={kind: sample}", "PD139"),
    ("finetune.objective={alpha: {schedule: wsd, warmup: 90%, decay: 20%}}", "", "PD115"),
    ("finetune.objective={alpha: 0.5, loss: {kind: reverse_kld}}", "", "PD137"),
    ("finetune.objective={alpha: 0.5, temperature: {kind: adakd_h, minimum: 3, maximum: 2}}", "", "PD132"),
    ("finetune.objective={alpha: 0.5}", "finetune.teacher.truncation={top_k: 250}", None),
    ("finetune.objective={alpha: 0.5}", "finetune.teacher.model.training.tokens=90k", "PD113"),
    ("finetune.objective=null", "", "PD130"),
]


@pytest.mark.parametrize(("objective", "more", "code"), FOUND)
def test_rules_look_at_it(recipe: Path, objective: str, more: str, code: str | None) -> None:
    overrides = [FINETUNE, OTHER, objective, *([more] if more else [])]
    if code is None:
        load_recipes(str(recipe), variants=("pd",), overrides=overrides)
        return
    with pytest.raises(RecipeError) as caught:
        load_recipes(str(recipe), variants=("pd",), overrides=overrides)
    [found] = errors(caught.value)
    assert found.code == code
    assert found.field.startswith("finetune.")


def test_warnings_look_at_it_once(recipe: Path) -> None:
    """A student and its fine-tuning have one teacher; a finding on it is one. Reverse KLD is no mistake here."""
    overrides = [FINETUNE, "finetune.objective={alpha: 1, temperature: 6, loss: {kind: reverse_kld}, tail: ghost}"]
    [loaded] = load_recipes(str(recipe), variants=("pd",), overrides=[*overrides, "teacher.truncation.top_k=5"])
    found = [(each.code, each.field) for each in loaded.warnings]
    assert ("PD151", "finetune.objective.temperature") in found
    assert ("PD152", "finetune.objective.alpha.value") in found
    assert [code for code, _ in found].count("PD155") == 1
    assert "PD159" not in dict(found)


def test_diff_and_report_tell_of_it(plans: MakePlans, recipe: Path, tmp_path: Path) -> None:
    both = [load_recipes(str(recipe), variants=("pd",), overrides=[*TAUGHT, *more]) for more in ([], [OTHER])]
    [run] = compare(*both).runs
    assert [change.stages for change in run.fields if change.field.startswith("finetune.teacher")]
    assert run.effect == "changes the science"
    other = ("recipe=other", "teacher.model.training.seed=4")
    made = [*plans(*TAUGHT, variants=("lm",)), *plans(*TAUGHT, *other, variants=("lm",))]
    results = gather(made, tmp_path)
    assert len({each.group for each in results.runs}) == 2, "of other teachers: not seeds of one run"
    assert len(results.teachers) == 2


def test_what_is_written_is_what_is_read_again(recipe: Path) -> None:
    [loaded] = load_recipes(str(recipe), variants=("pd",), overrides=[*TAUGHT, OTHER])
    written = loaded.recipe.model_dump(mode="json", by_alias=True)
    assert Recipe.model_validate(written) == loaded.recipe
