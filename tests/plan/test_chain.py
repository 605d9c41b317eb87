"""Chains of teachers: which stages a chain has, what their identities depend on, and how the plan tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.cli.render.diff_words import fate, result
from pdforge.errors import PdforgeError
from pdforge.launch.graph import dry_run
from pdforge.plan.jobs import CaptureJob, TrainJob
from pdforge.plan.make_page import make_page
from pdforge.plan.model import Plan
from pdforge.recipe.load import load_recipes
from pdforge.report.gather import gather
from pdforge.review.diff import compare
from tests.plan.conftest import CPU, MakePlans

SHAPE = "architecture: {hidden: 48, ffn: 96, layers: 3, heads: 4}"
TRAINING = "training: {tokens: 8k, batch: {global: 8, micro: 2}, checkpoint: {every: 10}}"
TOP = (
    "{model: {kind: pretrain, architecture: {hidden: 64, ffn: 128, layers: 4, heads: 4}, training: {tokens: 10k, "
    "batch: {global: 8, micro: 2}, learning_rate_schedule: {schedule: wsd, warmup: 10%, decay: 20%}, "
    "checkpoint: {every: 10}}}, truncation: {top_p: 0.9, top_k: 20}}"
)
"""The teacher of the recipe that all plans here start from."""


def assistant(teacher: str = TOP, *more: str, training: str = TRAINING) -> str:
    return f"{{kind: distilled, {', '.join([SHAPE, training, *more])}, teacher: {teacher}}}"


CHAIN = f"teacher.model={assistant()}"
LONGER = f"teacher.model={assistant(f'{{model: {assistant()}}}')}"


def kinds(plan: Plan) -> list[str]:
    return [stage.kind for stage in plan.stages]


def identities(plan: Plan) -> dict[str, str]:
    return {stage.title: stage.identity for stage in plan.stages}


def changed(before: Plan, after: Plan) -> set[str]:
    old, new = identities(before), identities(after)
    assert old.keys() == new.keys()
    return {title for title in old if old[title] != new[title]}


def test_the_stages_of_a_chain_feed_each_other(plans: MakePlans) -> None:
    [plan] = plans(CHAIN)
    tokenize, large, first, helper, second, train = plan.stages
    assert [stage.title for stage in plan.stages] == [
        "tokenize",
        "pretrain teacher",
        "capture logits",
        "distil assistant",
        "capture logits of assistant",
        "train pd",
    ]
    assert [stage.needs for stage in plan.stages] == [
        [],
        [tokenize.key],
        [tokenize.key, large.key],
        [tokenize.key, first.key],
        [tokenize.key, helper.key],
        [tokenize.key, second.key],
    ]
    assert all(stage.shared for stage in plan.stages[:-1])
    assert isinstance(helper.job, TrainJob)
    assert isinstance(first.job, CaptureJob)
    assert isinstance(second.job, CaptureJob)
    assert isinstance(train.job, TrainJob)
    assert (helper.job.logits, train.job.logits) == (first.job.output, second.job.output)
    assert helper.job.objective is not None
    assert (helper.job.place, helper.job.truncation) == ("teacher.model.training", first.job.truncation)
    # 15 steps of the assistant, 23 of the student, of 8 sequences
    assert (first.job.sequences, second.job.sequences) == (15 * 8, 23 * 8)
    assert (plan.captures, plan.teachers) == ([second], [helper])


def test_a_chain_shares_what_others_have(plans: MakePlans) -> None:
    """The large teacher is the one that a student learns of directly; both students of an assistant share it."""
    [direct], [chain], [other] = plans(), plans(CHAIN), plans(CHAIN, "objective.temperature=2")
    assert [stage.key for stage in direct.stages[:2]] == [stage.key for stage in chain.stages[:2]]
    assert chain.stages[:5] == other.stages[:5]
    assert chain.hash != other.hash


def test_an_assistant_of_an_assistant(plans: MakePlans) -> None:
    [chain], [plan] = plans(CHAIN), plans(LONGER)
    assert [stage.title for stage in plan.stages if stage.kind == "pretrain-teacher"] == [
        "pretrain teacher",
        "distil assistant",
        "distil assistant 2",
    ]
    assert [stage.key for stage in plan.stages[:4]] == [stage.key for stage in chain.stages[:4]]
    assert isinstance(plan.stages[3].job, TrainJob)
    assert plan.stages[3].job.place == "teacher.model.teacher.model.training"
    assert [stage.title for stage in plan.teachers] == ["distil assistant 2"]


AT_ALL = {"pretrain teacher", "capture logits", "distil assistant", "capture logits of assistant", "train pd"}


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("teacher.model.teacher.model.architecture.layers", "3", set()),
        ("teacher.model.teacher.model.training.seed", "1", set()),
        ("teacher.model.teacher.truncation.top_k", "10", {"pretrain teacher"}),
        ("teacher.model.objective.alpha", "0.5", {"pretrain teacher", "capture logits"}),
        ("teacher.model.objective.temperature", "2", {"pretrain teacher", "capture logits"}),
        ("teacher.model.architecture.ffn", "64", {"pretrain teacher", "capture logits"}),
        ("teacher.model.training.optimizer.learning_rate", "1.0e-3", {"pretrain teacher", "capture logits"}),
        ("teacher.model.training.tokens", "9k", {"pretrain teacher"}),  # says how much is captured
        ("teacher.model.training.batch.micro", "4", AT_ALL),
        ("teacher.truncation.top_k", "10", AT_ALL - {"capture logits of assistant", "train pd"}),
        ("objective.alpha.peak", "0.8", AT_ALL - {"train pd"}),
    ],
)
def test_what_changes_which_identity(plans: MakePlans, field: str, value: str, same: set[str]) -> None:
    [before], [after] = plans(CHAIN), plans(CHAIN, f"{field}={value}")
    assert changed(before, after) == AT_ALL - same


def test_an_assistant_that_gives_its_teacher_no_weight_is_a_teacher(plans: MakePlans) -> None:
    rate = "learning_rate_schedule: {schedule: wsd, warmup: 10%, decay: 1%}"  # the default; a mapping is merged
    alone = f"{{kind: pretrain, {SHAPE}, {TRAINING.replace('{', f'{{{rate}, ', 1)}}}"
    [chain], [plain] = (
        plans(f"teacher.model={assistant(TOP, 'objective: {alpha: 0}')}"),
        plans(f"teacher.model={alone}"),
    )
    assert identities(chain) == identities(plain)


def test_a_live_teacher_at_each_end(plans: MakePlans) -> None:
    [plan] = plans(CHAIN, "teacher.logits={mode: live}")
    assert kinds(plan) == ["tokenize", "pretrain-teacher", "capture", "pretrain-teacher", "train"]
    assert plan.captures == []
    assert plan.training.needs == [plan.stages[0].key, plan.stages[3].key]
    [beside] = plans(CHAIN, "teacher.model.teacher.logits={mode: live}")
    assert kinds(beside) == ["tokenize", "pretrain-teacher", "pretrain-teacher", "capture", "train"]
    assert isinstance(beside.stages[2].job, TrainJob)
    assert beside.stages[2].job.teacher is not None
    assert beside.stages[2].needs == [stage.key for stage in beside.stages[:2]]


def test_the_assistant_reads_what_an_online_teacher_saw(plans: MakePlans) -> None:
    online = TOP.replace("truncation:", "logits: {mode: online, from_step: 3}, truncation:")
    short = TRAINING.replace("8k", "4k")
    [plan] = plans(f"teacher.model={assistant(online, training=short)}")
    helper, train = plan.stages[3].job, plan.training.job
    assert isinstance(helper, TrainJob)
    assert isinstance(train, TrainJob)
    assert (helper.first_sample, train.first_sample) == (16, 0)


def test_on_slurm_each_job_waits_for_the_one_above(plans: MakePlans, tmp_path: Path) -> None:
    [plan] = plans(CHAIN, profile=CPU.model_copy(update={"executor": "slurm"}))
    jobs = [(title, command[-1]) for title, command, _ in dry_run([plan], tmp_path)]
    assert jobs[3:] == [
        ("distil assistant", "--dependency=afterok:<tokenize>:<capture logits>"),
        ("capture logits of assistant", "--dependency=afterok:<tokenize>:<distil assistant>"),
        ("train pd", "--dependency=afterok:<tokenize>:<capture logits of assistant>"),
    ]


@pytest.mark.parametrize(
    ("override", "code", "field"),
    [
        ("teacher.model.objective={loss: {kind: reverse_kld}}", "PD137", "teacher.model.objective.loss.kind"),
        ("teacher.model.teacher.truncation={kind: sample, draws: 50, seed: x}", "PD005", "teacher.model.teacher"),
        ("teacher.model.teacher.truncation.top_k=255.5", "PD005", "teacher.model.teacher.truncation.top_k"),
        ("teacher.model.teacher.truncation={top_p: 0.9, top_k: 250}", None, ""),
        ("data.tokenizer.vocabulary=290", None, ""),
        ("teacher.model.teacher.model.architecture.heads=5", "PD101", "teacher.model.teacher.model.architecture.heads"),
        ("teacher.model.architecture.heads=5", "PD101", "teacher.model.architecture.heads"),
        ("teacher.model.training.tokens=90k", "PD113", "teacher.model.training.tokens"),
        ("teacher.logits={mode: online, from_step: 3}", "PD133", "teacher.logits.mode"),
        ("teacher.model.teacher.modle={}", "PD003", "teacher.model.teacher.modle"),
    ],
)
def test_findings_point_into_the_chain(recipe: Path, override: str, code: str | None, field: str) -> None:
    try:
        load_recipes(str(recipe), variants=("pd",), overrides=[CHAIN, override])
    except PdforgeError as error:
        found = {(each.code, each.field) for each in getattr(error, "diagnostics", [])}
        assert code is not None, found
        assert any(each == code and at.startswith(field) for each, at in found), found
    else:
        assert code is None


def test_page_report_and_diff_tell_of_the_chain(plans: MakePlans, recipe: Path, tmp_path: Path) -> None:
    made = [*plans(variants=("pd",)), *plans(CHAIN)]
    page = make_page(made[1:], tmp_path)
    assert [model.role for model in page.models] == ["teacher", "assistant", "student"]
    assert len({model.parameters for model in page.models}) == 3
    gathered = gather(made, tmp_path)
    assert [teacher.name for teacher in gathered.teachers] == ["teacher", "assistant"]
    assert [run.teacher for run in gathered.runs] == [teacher.key for teacher in gathered.teachers]
    [run] = compare(*(load_recipes(str(recipe), variants=("pd",), overrides=each) for each in ([], [CHAIN]))).runs
    told = [(result(change), fate(change)) for change in run.stages]
    assert told == [
        ("token store", "reused"),
        ("teacher", "reused"),
        ("assistant", "new"),
        ("logit store of assistant", "captured again"),
        ("logit store", "new"),
        ("student", "trained again"),
    ]
