"""What finished stages measured: kept for each profile, used by the next plan, shown beside what was expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pdforge.compile import write_stage
from pdforge.launch.drive import write_runs
from pdforge.layout import RunDirectory, StageDirectory, measured_directory, write_json
from pdforge.plan.make_page import make_page
from pdforge.plan.measured import keep_measured, measure, read_measured, work_of
from pdforge.plan.model import Plan, Stage
from pdforge.plan.page import PlanPage, Step
from pdforge.plan.profile import Profile
from pdforge.report.plan_vs_actual import plan_vs_actual
from tests.plan.conftest import CPU, MakePlans
from tests.plan.test_commands import pdforge
from tests.plan.test_extension import CONSTANT, EXTEND, steps
from tests.plan.test_extension import finish as write_finished

FULL = {"positions": 11_776, "kept_count": 12.5, "bytes": 11_776 * 12.5 * 1.25, "seconds": 20.0}


def finish(
    stage: Stage,
    root: Path,
    *,
    rate: float | None,
    seconds: float,
    attempts: int = 1,
    results: dict[str, Any] | None = None,
) -> StageDirectory:
    """What a finished stage leaves, as far as measuring looks at it."""
    directory = write_stage(stage, root)
    for number in range(1, attempts + 1):
        write_json(directory.attempt(number).record, {"started": 1000.0})
    write_json(directory.progress, {"tokens_per_second": rate})
    write_json(directory.done, {"finished": 1000.0 + seconds, "results": {"seconds": seconds, **(results or {})}})
    return directory


def stage_of(plan: Plan, kind: Any) -> Stage:
    found = plan.stage(kind)
    assert found is not None
    return found


def page(plan: Plan, root: Path) -> PlanPage:
    return make_page([plan], root)


def step(page: PlanPage, kind: str) -> Step:
    return next(step for step in page.stages if step.kind == kind)


def test_a_training_predicts_the_same_training(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    [plan] = plans()
    train = stage_of(plan, "train")
    tokens = 23 * 8 * 64
    keep_measured(finish(train, root, rate=500.0, seconds=60.0), root, CPU)
    [kept] = read_measured(root)
    assert (kept.profile, kept.kind, kept.tokens, kept.tokens_per_second) == ("local", "train", tokens, 500.0)
    assert kept.overhead == pytest.approx(60 - tokens / 500)

    # other weights, twice the steps: the same work for every token, and one start
    [longer] = plans("training.tokens=null", "training.steps=30", "training.seed=4")
    took = step(page(longer, root), "train").duration
    assert took is not None
    assert took.source == "measured here once"
    assert took.seconds == pytest.approx(60 - tokens / 500 + 30 * 8 * 64 / 500)
    assert took.low < took.seconds < took.high


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("training.seed=9", True),
        ("training.optimizer.learning_rate=1.0e-3", True),
        ("objective.temperature=2", True),
        ("training.batch.micro=4", False),
        ("student.architecture.layers=3", False),
        ("training.activation_checkpointing=full", False),
        ("objective.tail=ghost", False),
        ("objective.alpha=0", False),
    ],
)
def test_which_work_is_the_same(plans: MakePlans, override: str, same: bool) -> None:
    [plan], [other] = plans(), plans(override)
    assert (work_of(stage_of(plan, "train").job) == work_of(stage_of(other, "train").job)) == same


def test_other_work_is_scaled_by_its_flops_and_less_sure(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    [plan] = plans()
    keep_measured(finish(stage_of(plan, "train"), root, rate=500.0, seconds=60.0), root, CPU)
    [deeper] = plans("student.architecture.layers=8")
    before, after = step(page(plan, root), "train"), step(page(deeper, root), "train")
    assert before.duration is not None
    assert after.duration is not None
    assert after.duration.source == "measured on local, other work"
    assert before.flops is not None
    assert after.flops is not None
    start = after.duration.start
    assert (after.duration.seconds - start) / (before.duration.seconds - start) == pytest.approx(
        after.flops / before.flops
    )
    assert after.duration.high / after.duration.seconds > 1.2
    # the teacher's training is work of the same kind, the capture is not
    assert step(page(deeper, root), "pretrain-teacher").duration is not None
    assert step(page(deeper, root), "capture").duration is None


def test_what_is_computed_again_is_in_no_rate_and_counted_once(plans: MakePlans, tmp_path: Path) -> None:
    """A twin of a run with full checkpointing takes as long; without it, three quarters."""
    root, full = tmp_path / "runs", "training.activation_checkpointing=full"
    keep_measured(finish(stage_of(plans(full)[0], "train"), root, rate=500.0, seconds=60.0), root, CPU)
    for overrides, part in (((full,), 1.0), ((), 0.75)):
        took = step(page(plans("objective.tail=ghost", *overrides)[0], root), "train").duration
        assert took is not None
        assert took.source == "measured on local, other work"
        assert took.seconds - took.start == pytest.approx(part * 23 * 8 * 64 / 500)


def test_starts_are_those_of_the_same_devices(plans: MakePlans, tmp_path: Path) -> None:
    root, gpu = tmp_path / "runs", CPU.model_copy(update={"device": "cuda"})
    for profile, seconds, seed in ((CPU, 60.0, 1), (gpu, 600.0, 2)):
        [plan] = plans(f"training.seed={seed}", profile=profile)
        keep_measured(finish(stage_of(plan, "train"), root, rate=500.0, seconds=seconds), root, profile)
    took = step(page(plans("student.architecture.layers=8")[0], root), "train").duration
    assert took is not None
    assert took.start == pytest.approx(60 - 23 * 8 * 64 / 500)


def test_another_profile_learns_from_the_same_gpus_only(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    here = Profile(name="here", device="cuda", gpu="H100")
    [plan] = plans(profile=here)
    keep_measured(finish(stage_of(plan, "train"), root, rate=500.0, seconds=60.0), root, here)
    for gpu, source in (("H100", "measured on another cluster's H100, other work"), ("H200", "assumed 35 % of peak")):
        [there] = plans(profile=here.model_copy(update={"name": "there", "gpu": gpu}))
        took = step(page(there, root), "train").duration
        assert took is not None
        assert took.source == source
    [cpu] = plans()
    assert step(page(cpu, root), "train").duration is None


def test_several_runs_set_the_band(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for seed, rate in ((1, 200.0), (2, 500.0), (3, 600.0)):
        [plan] = plans(f"training.seed={seed}")
        keep_measured(finish(stage_of(plan, "train"), root, rate=rate, seconds=100.0), root, CPU)
    took = step(page(plans()[0], root), "train").duration
    assert took is not None
    assert took.source == "measured here 3 times"
    tokens = 23 * 8 * 64
    assert took.seconds - took.start == pytest.approx(tokens / 500)
    assert took.high == pytest.approx(took.start + tokens / 200)


def test_after_a_restart_the_rate_counts_and_the_time_does_not(plans: MakePlans, tmp_path: Path) -> None:
    [plan] = plans()
    found = measure(finish(stage_of(plan, "train"), tmp_path, rate=500.0, seconds=9000.0, attempts=2), CPU)
    assert found is not None
    assert (found.seconds, found.overhead, found.tokens_per_second) == (None, None, 500.0)


def test_what_the_last_start_took_is_not_the_time_of_all_tokens(plans: MakePlans, tmp_path: Path) -> None:
    """A capture that only published what earlier starts, or the tasks of an array, had captured."""
    [plan] = plans()
    found = measure(finish(stage_of(plan, "capture"), tmp_path, rate=None, seconds=2.0, attempts=3, results=FULL), CPU)
    assert found is not None
    assert (found.tokens_per_second, found.flops_per_second) == (None, None)
    assert found.entries == 12.5


def test_a_capture_of_an_array_runs_on_all_its_tasks(plans: MakePlans, tmp_path: Path) -> None:
    """32 tasks of 4 processes, of which 8 run at one time; its rate is that of 32 processes."""
    root = tmp_path / "runs"
    array = Profile(name="array", executor="slurm", processes_per_node=4, capture_tasks=32, array_parallelism=8)
    [plan] = plans(profile=array)
    keep_measured(finish(stage_of(plan, "capture"), root, rate=400.0, seconds=40.0, results=FULL), root, array)
    [kept] = read_measured(root)
    assert kept.processes == 32
    again = step(page(plans("teacher.model.training.seed=5", profile=array)[0], root), "capture")
    assert again.duration is not None
    assert (again.processes, again.duration.source) == (32, "measured here once")
    [twice] = plans("teacher.truncation.top_k=5", profile=array.model_copy(update={"array_parallelism": 16}))
    other = step(page(twice, root), "capture")
    assert other.duration is not None
    assert other.processes == 64
    assert other.duration.seconds - other.duration.start == pytest.approx(23 * 8 * 64 / 800)


def test_a_store_predicts_the_next_one(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    [plan] = plans()
    keep_measured(finish(stage_of(plan, "capture"), root, rate=400.0, seconds=40.0, results=FULL), root, CPU)
    [other] = plans("teacher.model.training.seed=5")
    store = step(page(other, root), "capture").store
    assert store is not None
    assert store.bytes == round(FULL["bytes"])
    assert store.source.startswith("measured: store ")
    [cut] = plans("teacher.truncation.top_k=5")
    unlike = step(page(cut, root), "capture").store
    assert unlike is not None
    assert unlike.bytes is None


def test_damaged_and_foreign_files_tell_nothing(plans: MakePlans, tmp_path: Path) -> None:
    [plan] = plans()
    train = stage_of(plan, "train")
    assert measure(StageDirectory(tmp_path / "nowhere"), CPU) is None
    directory = finish(train, tmp_path, rate=None, seconds=10.0)
    found = measure(directory, CPU)
    assert found is not None
    assert found.tokens_per_second == pytest.approx(23 * 8 * 64 / 10)
    directory.done.write_text("{")
    assert keep_measured(directory, tmp_path, CPU) is None
    folder = measured_directory(tmp_path, "local")
    folder.mkdir(parents=True)
    (folder / "train-x.json").write_text("{}")
    (folder / "train-y.json").write_text("not json")
    assert read_measured(tmp_path) == []


def test_a_full_disk_does_not_end_a_run(plans: MakePlans, tmp_path: Path) -> None:
    [plan] = plans()
    directory = finish(stage_of(plan, "train"), tmp_path, rate=500.0, seconds=10.0)
    measured_directory(tmp_path, "local").parent.write_text("in the way")
    assert keep_measured(directory, tmp_path, CPU) is not None


def test_estimates_stand_beside_what_happened(plans: MakePlans, recipe: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    [plan] = plans()
    write_runs([plan], root)
    before = RunDirectory(root / plan.directory).page.read_bytes()
    assert plan_vs_actual(plan, root) == []
    keep_measured(finish(stage_of(plan, "capture"), root, rate=400.0, seconds=40.0, results=FULL), root, CPU)
    finish(stage_of(plan, "train"), root, rate=500.0, seconds=60.0)
    write_runs([plan], root)
    assert RunDirectory(root / plan.directory).page.read_bytes() == before  # what was expected at the start
    rows = {(row.stage, row.figure): row for row in plan_vs_actual(plan, root)}
    assert (rows["capture logits", "entries a token"].estimated, rows["capture logits", "entries a token"].actual) == (
        None,
        12.5,
    )
    assert rows["train pd", "wall-clock"].actual == 60.0
    arguments = ("report", str(recipe), "-v", "pd", "--root", str(root), "-n", "1", "--plan-vs-actual")
    shown = pdforge(*arguments)
    assert shown.returncode == 0, shown.stderr
    assert "wall-clock       unknown" in shown.stdout
    assert json.loads(pdforge(*arguments, "--json").stdout)[plan.directory][0]["stage"] == "capture logits"

    # the next run was expected from the first one
    [second] = plans("teacher.model.training.seed=5")
    write_runs([second], root)
    finish(stage_of(second, "capture"), root, rate=440.0, seconds=44.0, results={**FULL, "kept_count": 13.0})
    ratio = {row.figure: row.ratio for row in plan_vs_actual(second, root)}
    assert ratio["wall-clock"] == pytest.approx(44 / 40)
    assert ratio["tokens a second"] == pytest.approx(1.1)
    assert ratio["entries a token"] == pytest.approx(13 / 12.5)


def test_of_a_training_that_goes_on_the_steps_count_that_it_makes(plans: MakePlans, tmp_path: Path) -> None:
    """20 of 40 steps, in 60 seconds; as many were expected."""
    root = tmp_path / "runs"
    [short] = plans(*steps(20, *CONSTANT))
    keep_measured(finish(short.training, root, rate=500.0, seconds=60.0), root, CPU)
    write_finished(short, root)
    [plan] = plans(*steps(40, *CONSTANT, EXTEND))
    write_runs([plan], root)
    found = measure(finish(plan.training, root, rate=500.0, seconds=60.0), CPU)
    assert found is not None
    tokens = 20 * 8 * 64
    assert (found.tokens, found.overhead) == (tokens, pytest.approx(60 - tokens / 500))
    ratio = {row.figure: row.ratio for row in plan_vs_actual(plan, root)}
    assert (ratio["wall-clock"], ratio["tokens a second"]) == pytest.approx((1.0, 1.0))


def test_a_run_without_a_page_is_named(plans: MakePlans, recipe: Path, tmp_path: Path) -> None:
    shown = pdforge("report", str(recipe), "-v", "pd", "--root", str(tmp_path), "-n", "1", "--plan-vs-actual")
    assert shown.returncode == 2
    assert "page.json" in shown.stderr
