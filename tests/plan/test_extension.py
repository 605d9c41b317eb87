"""From which step a longer run may go on from a finished one: where every schedule has had the same values."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.compile.stage import write_stage
from pdforge.layout import RunDirectory, StageDirectory, write_atomically, write_json
from pdforge.plan import identities
from pdforge.plan.advice import advice
from pdforge.plan.extension import extension_line, find_extension, held_step
from pdforge.plan.jobs import TrainJob
from pdforge.plan.model import Plan
from tests.plan.conftest import MakePlans
from tests.plan.test_commands import pdforge


def job(plan: Plan) -> TrainJob:
    assert isinstance(plan.training.job, TrainJob)
    return plan.training.job


def finish(plan: Plan, root: Path, *, checkpoints: tuple[int, ...] | None = None) -> None:
    """Leave what a finished run leaves: by default its last checkpoint and the one that it holds for longer runs."""
    write_atomically(RunDirectory(root / plan.directory).plan, plan.model_dump_json(by_alias=True))
    stage = StageDirectory(root / plan.training.directory)
    for step in checkpoints if checkpoints is not None else (held_step(job(plan)), job(plan).steps):
        write_atomically(stage.checkpoint(step) / ".metadata", "")
    write_json(stage.done, {"results": {}})


def steps(number: int, *more: str) -> tuple[str, ...]:
    return ("training.tokens=null", "training.epochs=2", f"training.steps={number}", *more)


CONSTANT = ("training.learning_rate_schedule={schedule: constant, warmup: 0}", "objective.alpha=0.9")
HALF_THE_WARMUP = ("training.learning_rate_schedule.warmup=5%", "objective.alpha.warmup=5%")
EXTEND = "student.extend=true"


@pytest.mark.parametrize(
    ("short", "long", "same_until", "obstacle"),
    [
        (CONSTANT, CONSTANT, 20, ""),
        # a warm-up is a part of the length: as many steps, or other values from the first one on
        ((), HALF_THE_WARMUP, 17, "the learning rate (wsd) differs from step 18 on"),
        ((), (), 0, "the learning rate (wsd) and α (wsd) differ from step 1 on (warm-up: 2 steps there, 4 here; `war"),
        (
            ("training.learning_rate_schedule={schedule: cosine}", CONSTANT[1]),
            ("training.learning_rate_schedule={schedule: cosine}", CONSTANT[1]),
            1,
            "the learning rate (cosine) differs from step 2 on",
        ),
        (
            (CONSTANT[0], "objective.alpha={schedule: linear_inc}"),
            (CONSTANT[0], "objective.alpha={schedule: linear_inc}"),
            1,
            "α (linear_inc) differs from step 2 on",
        ),
        (
            (CONSTANT[0], "objective.alpha={schedule: wsd_beta, warmup: 10%, decay: 30%}"),
            (CONSTANT[0], "objective.alpha={schedule: wsd_beta, warmup: 5%, decay: 30%}"),
            14,
            "α (wsd_beta) differs from step 15 on",
        ),
        (
            (*CONSTANT, "objective.temperature={kind: scheduled, high: 2, along: {schedule: linear_dec}}"),
            (*CONSTANT, "objective.temperature={kind: scheduled, high: 2, along: {schedule: linear_dec}}"),
            1,
            "τ differs from step 2 on",
        ),
        # a plateau is one whatever comes after it, and a decay may begin sooner in the longer run
        (CONSTANT, ("training.learning_rate_schedule={schedule: wsd, warmup: 0, decay: 20%}", CONSTANT[1]), 20, ""),
        (CONSTANT, ("training.learning_rate_schedule={schedule: wsd, warmup: 0, decay: 75%}", CONSTANT[1]), 11, "the"),
        (CONSTANT, (CONSTANT[0], "objective.alpha=0.8"), 0, "α (constant) differs from step 1 on"),
    ],
)
def test_numbers_are_the_same_as_long_as_every_schedule_is(
    plans: MakePlans, tmp_path: Path, short: tuple[str, ...], long: tuple[str, ...], same_until: int, obstacle: str
) -> None:
    root = tmp_path / "runs"
    (finished,), (longer,) = plans(*steps(20, *short)), plans(*steps(40, *long))
    assert finished.hash != longer.hash
    assert find_extension(longer, root) is None
    finish(finished, root, checkpoints=(1, 11, 14, 17, 20))
    found = find_extension(longer, root)
    assert found is not None
    assert (found.finished.hash, found.steps, found.wanted) == (finished.hash, 20, 40)
    assert (found.same_until, found.checkpoint) == (same_until, same_until)
    assert found.obstacle.startswith(obstacle)
    assert bool(found.obstacle) == bool(obstacle)


def test_an_alpha_that_follows_a_teacher_is_that_of_one_store(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    follow = ("objective.alpha={schedule: teacher_convergence}", "teacher.logits={mode: online, from_step: 1}")
    short, long = (
        plans("training.tokens=null", f"training.steps={number}", CONSTANT[0], *follow)[0] for number in (16, 19)
    )
    finish(short, root, checkpoints=(16,))
    assert held_step(job(short)) == 0
    found = find_extension(long, root)
    assert found is not None
    assert (found.same_until, found.obstacle) == (0, "α (teacher_convergence) differs from step 1 on")


def test_the_warm_up_that_is_suggested_is_the_one(plans: MakePlans, tmp_path: Path) -> None:
    root, rate = tmp_path / "runs", "training.learning_rate_schedule.warmup="
    finish(plans(*steps(20, CONSTANT[1]))[0], root)
    found = find_extension(plans(*steps(33, CONSTANT[1]))[0], root)
    assert found is not None
    suggested = found.obstacle.split("`warmup: ")[1].split("`")[0]
    found = find_extension(plans(*steps(33, CONSTANT[1], rate + suggested))[0], root)
    assert found is not None
    assert found.same_until == 17


def test_only_length_and_schedules_may_differ(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    finish(plans(*steps(20, *CONSTANT))[0], root)
    for change in ("training.seed=1", "objective.temperature=2", "student.architecture.layers=3", "data.seed=5"):
        assert find_extension(plans(*steps(30, *CONSTANT, change))[0], root) is None, change
    (elsewhere,) = plans(*steps(30, *CONSTANT, "training.checkpoint.every=5", "training.batch.micro=4"))
    assert find_extension(elsewhere, root) is not None
    assert find_extension(plans(*steps(10, *CONSTANT))[0], root) is None


def test_another_store_is_another_order(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    finish(plans("training.tokens=null", "data.train_tokens=10k", *CONSTANT)[0], root)
    (long,) = plans("training.tokens=null", "data.train_tokens=20k", *CONSTANT, EXTEND)
    found = find_extension(long, root)
    assert found is not None
    assert (found.same_until, job(long).extends) == (0, None)
    assert "another order" in found.obstacle
    # read twice, the same store is longer
    (twice,) = plans("training.tokens=null", "data.train_tokens=10k", "training.epochs=2", *CONSTANT, EXTEND)
    assert job(twice).extends is not None


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ("versions", ()),
        # whose distributions: another rank table, learnt from less; and another threshold of low entropies
        ("data", ("training.steps=1",)),
        ("filter", ("objective.token_filter={skip_lowest_entropy: 15%}",)),
    ],
)
def test_what_changed_since_is_no_extension(
    plans: MakePlans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, fields: tuple[str, ...]
) -> None:
    root = tmp_path / "runs"
    finish(plans(*steps(15, *CONSTANT, *fields))[0], root)
    if change == "versions":
        monkeypatch.setattr(identities, "TORCHTITAN", "0.4.0")
    (longer,) = plans(*steps(30, *CONSTANT, *(field for field in fields if "steps" not in field), EXTEND))
    found = find_extension(longer, root)
    assert found is not None
    assert found.obstacle
    assert (found.checkpoint, job(longer).extends) == (0, None)


def test_the_run_that_takes_it_furthest(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for number in (10, 20, 15):
        finish(plans(*steps(number, *CONSTANT))[0], root)
    write_atomically(root / "small-pd-damaged" / "plan.json", "{")
    found = find_extension(plans(*steps(30, *CONSTANT))[0], root)
    assert found is not None
    assert found.steps == 20


def test_without_a_teacher_the_objective_does_not_matter(plans: MakePlans, tmp_path: Path) -> None:
    lm = ("objective.alpha=0", CONSTANT[0])
    finish(plans(*steps(20, *lm))[0], tmp_path / "runs")
    (long,) = plans(*steps(30, *lm, "objective.temperature=2", "teacher.truncation.top_k=5"))
    found = find_extension(long, tmp_path / "runs")
    assert found is not None
    assert found.same_until == 20


def test_a_checkpoint_that_is_gone(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    finish(plans(*steps(20, *CONSTANT))[0], root, checkpoints=(15,))
    found = find_extension(plans(*steps(30, *CONSTANT))[0], root)
    assert found is not None
    assert (found.checkpoint, found.obstacle) == (15, "the checkpoint of step 20 is gone")


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        ((), 17),
        (CONSTANT, 0),  # the last one is kept anyway
        (("training.learning_rate_schedule={schedule: cosine}",), 0),
        ((CONSTANT[0], "objective.alpha={schedule: wsd, warmup: 0, decay: 25%}"), 15),
        ((CONSTANT[0], "objective.alpha={schedule: period}"), 0),
        (("training.learning_rate_schedule={schedule: wsd, warmup: 50%, decay: 50%}",), 11),
    ],
)
def test_the_checkpoint_before_the_decay_is_held(
    plans: MakePlans, tmp_path: Path, fields: tuple[str, ...], held: int
) -> None:
    (plan,) = plans(*steps(20, *fields))
    assert held_step(job(plan)) == held
    written = write_stage(plan.training, tmp_path / "runs").train_module.read_text(encoding="utf-8")
    assert (f"hold=({held},)," in written) == bool(held)
    teacher = plan.stage("pretrain-teacher")
    assert teacher is not None
    assert "hold=" not in write_stage(teacher, tmp_path / "runs").train_module.read_text(encoding="utf-8")


def test_extending_is_asked_for_and_no_part_of_an_identity(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    (finished,), (plain,) = plans(*steps(20)), plans(*steps(40, *HALF_THE_WARMUP, EXTEND))
    assert (job(plain).extends, extension_line(plain)) == (None, "")
    finish(finished, root)
    (straight,), (longer,) = plans(*steps(40, *HALF_THE_WARMUP)), plans(*steps(40, *HALF_THE_WARMUP, EXTEND))
    assert job(straight).extends is None
    extends = job(longer).extends
    assert extends is not None
    assert (extends.run, extends.step) == (finished.directory, 17)
    assert extension_line(longer) == f"goes on from step 17 of {finished.directory}, with the same numbers up to there"
    assert longer.hash == straight.hash == plain.hash
    assert longer.training.identity == straight.training.identity
    module = write_stage(longer.training, root).train_module.read_text(encoding="utf-8")
    assert f'initial_load_path="{StageDirectory(root / finished.training.directory).checkpoint(17)}"' in module
    # with all the finished run has there is nothing to warn of, and what of it is used is said
    said = [each.message for each in advice(longer, root)]
    assert said == [m.message for m in advice(straight, root)]
    finish(longer, root)
    assert advice(plans(*steps(40, *HALF_THE_WARMUP, EXTEND))[0], root) == []


def test_plan_says_from_where(plans: MakePlans, recipe: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    (finished,) = plans(*steps(20, *CONSTANT))
    finish(finished, root)
    longer = steps(40, *CONSTANT, EXTEND)
    chosen = ("--root", str(root), "-v", "pd", *(each for field in longer for each in ("--set", field)))
    planned = pdforge("plan", str(recipe), *chosen)
    assert planned.returncode == 0, planned.stderr
    assert f"pd goes on from step 20 of {finished.directory}" in " ".join(planned.stdout.split())
    assert "PD171" not in planned.stdout
