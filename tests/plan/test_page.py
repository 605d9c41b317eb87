"""The figures of a plan's page: those of the paper, arithmetic done another way, and unknown where nothing is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.cli.render.plan_words import sections
from pdforge.layout import StageDirectory, write_json
from pdforge.plan.build import make_plans
from pdforge.plan.content import written_fingerprint
from pdforge.plan.curves import Curve
from pdforge.plan.jobs import CaptureJob
from pdforge.plan.make_page import make_page
from pdforge.plan.page import PlanPage, Step
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes
from tests.plan.conftest import CPU, MakePlans
from tests.plan.test_extension import CONSTANT, EXTEND, finish, steps
from tests.store import made

H100 = Profile(
    name="h100",
    executor="slurm",
    device="cuda",
    nodes=8,
    processes_per_node=8,
    gpus_per_node=8,
    walltime="12h",
    gpu="H100",
    price=2.0,
    disk="10TB",
    disk_read="40GB",
    disk_write="20GB",
)


def gallery(
    recipe: str, *overrides: str, variants: tuple[str, ...] = (), profile: Profile = H100, root: Path = Path("/none")
) -> PlanPage:
    loaded = load_recipes(recipe, variants=variants, overrides=overrides)
    return make_page(make_plans(loaded, profile, root, fingerprint_of=written_fingerprint), root)


def only(page: PlanPage, kind: str) -> Step:
    [step] = [step for step in page.stages if step.kind == kind]
    return step


def test_steps_are_the_papers() -> None:
    """11,921 steps for 100B tokens and 59,604 for 500B, its last checkpoint (arXiv 2410.16215)."""
    assert {step.steps for step in gallery("pd_star").stages if step.kind == "train"} == {11_921}
    assert {step.steps for step in gallery("paper/budget").stages if step.kind == "train"} == {59_604}


def test_storage_is_the_papers() -> None:
    """58.6 PB of full logits, 14.8 TB for the values alone at 37.0 a token; this store beside them."""
    vanilla, ours = (
        only(gallery(recipe, variants=(variant,)), "capture").store
        for recipe, variant in (("vanilla", "pd"), ("pd_star", "1.9b"))
    )
    assert vanilla is not None
    assert ours is not None
    for store in (vanilla, ours):
        assert store.paper_full_pb == pytest.approx(58.6, abs=0.05)
        assert store.paper_values == pytest.approx(14.8e12, rel=1e-3)
        assert store.full == 100_000_595_968 * 151_552 * 4
    assert (vanilla.entries.mean, ours.entries.mean) == (37.0, 22.3)
    assert ours.bytes == pytest.approx(1e11 * 22.3 * 1.5, rel=1e-4)


def test_where_nothing_is_known_nothing_is_guessed(plans: MakePlans, tmp_path: Path) -> None:
    page = make_page(plans(), tmp_path / "runs")
    capture, train = only(page, "capture"), only(page, "train")
    assert capture.store is not None
    assert (capture.store.entries.mean, capture.store.bytes, capture.bytes) == (None, None, None)
    assert capture.bytes_at_most == 23 * 8 * 64 * 20 * 3 // 2
    assert (train.duration, train.process_hours, train.cost, train.requeues, train.memory) == (None,) * 5
    assert (page.total.seconds, page.total.process_hours, page.total.cost) == (None, None, None)
    assert page.place.disk is not None  # this machine can be asked

    elsewhere = gallery("pd_star", variants=("1.9b",), profile=H100.model_copy(update={"gpu": None, "disk": None}))
    assert only(elsewhere, "train").duration is None
    assert elsewhere.place.gpu_memory is None
    assert elsewhere.place.disk is None


def test_a_teacher_of_unknown_shape_is_unknown() -> None:
    page = gallery("paper/sizes", variants=("1.9b-from-32b",))
    teacher = page.models[0]
    assert (teacher.name, teacher.parameters, teacher.active) == ("zai-org/GLM-4-32B-Base-0414", None, None)
    assert only(page, "capture").duration is None
    assert only(page, "capture").memory is None
    assert page.total.process_hours is None


def test_a_known_teacher_needs_no_architecture_in_the_recipe() -> None:
    """The bundled shape gives every figure that the recipe's gives; and the biases, whichever it is."""
    said, known = (gallery("pd_star", *more, variants=("1.9b",)) for more in ((), ("teacher.model.architecture=null",)))
    assert known == said
    assert only(known, "capture").duration is not None
    recipes = load_recipes("pd_star", variants=("1.9b",))
    [plan] = make_plans(recipes, H100, Path("/none"), fingerprint_of=written_fingerprint)
    assert plan.figures.teacher is not None
    assert plan.figures.teacher.parameters == known.models[0].parameters == 9_399_951_360


def test_a_directory_says_the_shape_of_its_teacher(plans: MakePlans, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"<|endoftext|>": 0, "a": 1}}}')
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 320, **shape}))
    said = "{hidden: 32, ffn: 64, layers: 1, heads: 4}"  # of another model
    made = plans(
        f"teacher.model={{kind: huggingface, path: {folder}, architecture: {said}}}",
        f"data.tokenizer={{kind: pretrained, path: {folder}, vocabulary: 300}}",
        variants=("pd",),
    )
    page = make_page(made, tmp_path / "runs")
    block = 4 * 64 * 64 + 3 * 64 * 128 + 2 * 64 + 3 * 64  # the last: biases
    assert (page.models[0].parameters, page.models[0].source) == (2 * block + 2 * 320 * 64 + 64, "its config.json")
    capture = only(page, "capture")
    assert capture.flops == page.models[0].forward_flops * capture.tokens


def test_time_and_money_of_an_assumed_utilisation() -> None:
    page = gallery("pd_star", variants=("1.9b",))
    train = only(page, "train")
    student = page.models[-1]
    assert train.duration is not None
    assert train.tokens is not None
    assert student.training_flops is not None
    products = train.tokens * student.training_flops / (64 * 989e12 * 0.35)
    seconds = train.duration.seconds
    # the first block's weights and the last one's gradients are waited for
    assert products < seconds < 1.01 * products
    assert train.duration.low < seconds < train.duration.high
    assert train.duration.source == "assumed 35 % of peak"
    assert train.process_hours == pytest.approx(seconds * 64 / 3600)
    assert train.cost == pytest.approx(2.0 * seconds * 64 / 3600)
    usable = 12 * 3600 - 120
    assert train.requeues == seconds // usable
    capture = only(page, "capture")
    assert capture.duration is not None
    # the student waits for the capture
    assert page.total.seconds == pytest.approx(seconds + capture.duration.seconds)
    more = gallery("pd_star", "training.activation_checkpointing=full", variants=("1.9b",))
    recomputed = only(more, "train").duration
    assert recomputed is not None
    assert recomputed.seconds - seconds == pytest.approx(products / 3)


def test_what_a_teacher_stored_itself_takes_no_second_pass() -> None:
    page = gallery("paper/online", variants=("late",))
    capture = only(page, "capture")
    assert (capture.flops, capture.duration, capture.memory) == (0, None, None)
    rows = [section.table.rows for section in sections(page) if section.title == "stages" and section.table]
    assert rows[0][2].cells[1:7] == ("capture logits", "1, 2", "", "100B", "", "–")
    # as of text that is tokenized, its time is not the plan's
    assert page.total.seconds is not None
    trained = [step.duration.seconds for step in page.stages if step.duration]
    assert len(trained) == 2
    assert page.total.seconds == pytest.approx(sum(trained))


def test_runs_wait_for_each_other_only_where_one_machine_carries_them_out() -> None:
    cluster, here = (
        gallery("pd_star", profile=H100.model_copy(update={"executor": executor})) for executor in ("slurm", "local")
    )
    took = [step.duration.seconds for step in cluster.stages if step.duration]
    assert here.total.seconds == pytest.approx(sum(took))
    capture = only(cluster, "capture").duration
    assert capture is not None
    assert cluster.total.seconds == pytest.approx(capture.seconds + max(took[1:]))
    assert cluster.total.process_hours == here.total.process_hours
    one, two = (
        gallery("pd_star", profile=H100.model_copy(update={"runs_at_once": number, "executor": executor}))
        for number, executor in ((1, "slurm"), (2, "local"))
    )
    assert one.total.seconds == pytest.approx(sum(took))
    assert two.total.seconds == pytest.approx(took[0] + took[1] + took[3])
    times = [next(each for each in sections(page) if each.title == "time") for page in (cluster, here, two)]
    assert [time.table and time.table.rows[-1].cells[-1] for time in times] == [
        "longest chain",
        "one after another",
        "2 at a time",
    ]


@pytest.mark.parametrize(("nodes", "accumulation"), [(8, 8), (32, 2)])
def test_batch_arithmetic_of_clusters_that_are_not_here(nodes: int, accumulation: int) -> None:
    page = gallery("pd_star", profile=H100.model_copy(update={"nodes": nodes}), variants=("1.9b",))
    batch = only(page, "train").batch
    assert batch is not None
    assert (batch.data_parallel, batch.micro, batch.accumulation) == (nodes * 8, 4, accumulation)
    assert batch.data_parallel * batch.micro * batch.accumulation == batch.sequences == 2048


def test_what_is_done_costs_nothing(plans: MakePlans, tmp_path: Path) -> None:
    [plan], root = plans(), tmp_path / "runs"
    before = make_page([plan], root)
    write_json(StageDirectory(root / plan.stages[0].directory).done, {"results": {}})
    page = make_page([plan], root)
    assert [step.done for step in page.stages] == [True, False, False, False]
    assert page.total.bytes is not None
    assert before.total.bytes == page.total.bytes + (page.stages[0].bytes or 0)


def test_what_a_shorter_run_has_done_costs_nothing(plans: MakePlans, tmp_path: Path) -> None:
    """A student of 40 steps that goes on from step 20 of another."""
    root, gpu = tmp_path / "runs", Profile(name="gpu", device="cuda", gpu="H100", price=1.0)
    more = "training.checkpoint={every: 10, keep: 9}"
    short, long = (plans(*steps(number, *CONSTANT, more), profile=gpu)[0] for number in (20, 40))
    whole = only(make_page([long], root), "train")
    finish(short, root)
    [going_on] = plans(*steps(40, *CONSTANT, more, EXTEND), profile=gpu)
    half = only(make_page([going_on], root), "train")
    assert (half.steps, half.tokens, half.epochs) == (whole.steps, whole.tokens, whole.epochs)
    for one, other in ((half.flops, whole.flops), (half.process_hours, whole.process_hours), (half.cost, whole.cost)):
        assert one is not None
        assert other is not None
        assert one == pytest.approx(other / 2)
    assert (half.read_rate, half.write_rate) == pytest.approx((whole.read_rate, whole.write_rate))
    assert half.checkpoints is not None
    assert whole.checkpoints is not None
    assert (half.checkpoints.saves, half.checkpoints.kept) == (2, 2)
    assert (whole.checkpoints.saves, whole.checkpoints.kept) == (4, 4)


def test_shards_that_are_there_say_what_the_others_weigh(plans: MakePlans, tmp_path: Path) -> None:
    [plan], root = plans("teacher.logits.shard_sequences=8"), tmp_path / "runs"
    output = StageDirectory(root / plan.stages[2].directory).output
    output.mkdir(parents=True)
    (output / "shard-000003.bin").write_bytes(b"x" * 1000)
    (output / "shard-000001.bin").write_bytes(b"x" * 1200)
    store = only(make_page([plan], root), "capture").store
    assert store is not None
    assert store.bytes == 2200 // 16 * 23 * 8 + (2200 % 16) * 23 * 8 // 16
    assert store.source == "its first 16 sequences"


def test_checkpoints(plans: MakePlans, tmp_path: Path) -> None:
    page = make_page(plans("training.checkpoint.keep=2"), tmp_path)
    made, parameters = only(page, "train").checkpoints, page.models[-1].parameters
    assert made is not None
    assert parameters is not None
    assert (made.each, made.kept, made.saves) == (12 * parameters, 3, 4)  # 23 steps, every 10, and 19 before the decay
    assert made.written_bytes == 4 * made.each


def test_a_checkpoint_that_is_held_counts_among_the_newest() -> None:
    """Of 25 of `pd_star` there stay those of steps 11,500, 11,802 (before the decay) and 11,921."""
    train = only(gallery("pd_star", variants=("1.9b",)), "train")
    assert train.checkpoints is not None
    assert (train.checkpoints.kept, train.checkpoints.saves) == (3, 25)
    assert train.bytes == 3 * train.checkpoints.each


def test_curves_turn_where_the_schedules_do() -> None:
    curves = {curve.name: curve for curve in only(gallery("pd_star", variants=("1.9b",)), "train").curves}
    assert [step for step, _ in curves["α"].keys] == [1, 1192, 11_802, 11_921]
    assert curves["α"].values[-1] == 0
    assert max(curves["α"].values) == 0.9
    assert curves["τ"].keys == ((1, 2.0),)
    assert max(curves["learning rate"].values) == 6e-4
    assert curves["learning rate"].steps[-1] == 11_921


def test_an_alpha_that_follows_its_teacher_is_drawn_once_the_teacher_is_known(plans: MakePlans, tmp_path: Path) -> None:
    """Shards of 16 sequences, steps of 8: two steps a shard; nothing is guessed before."""
    root, follow = tmp_path / "runs", "objective.alpha={schedule: teacher_convergence, peak: 0.8, half_at: 0.5}"
    [plan] = plans("training.tokens=4k", "teacher.logits={mode: online, from_step: 1, shard_sequences: 16}", follow)

    def alpha() -> Curve:
        return only(make_page([plan], root), "train").curves[0]

    assert alpha() == Curve("α", "teacher_convergence", (), (), (), "at most 0.8; known when its teacher is trained")
    shards = [{"steps": [1, 2], "loss": loss} for loss in (5.0, 4.0, 3.5, 2.9)]
    capture = plan.stage("capture")
    assert capture is not None
    assert isinstance(capture.job, CaptureJob)
    made.store(
        StageDirectory(root / capture.directory).output,
        made.spec(sequences=capture.job.sequences, shard_sequences=16),
        capture={"from_step": 1, "shards": shards, "last": {"steps": [19, 19], "loss": 3.0}},
    )
    found = alpha()
    assert found.steps == (1, 2, 3, 4, 5, 6, 7)
    assert found.values == pytest.approx([0.05, 0.05, 0.2, 0.2, 0.4, 0.4, 0.8])


def test_a_page_is_json(plans: MakePlans, tmp_path: Path) -> None:
    for page in (make_page(plans(variants=()), tmp_path), gallery("pd_star")):
        said = json.loads(json.dumps(page.to_json(), allow_nan=False))
        assert [stage["number"] for stage in said["stages"]] == list(range(1, len(page.stages) + 1))
        assert said["name"] == page.name
    memory = said["stages"][-1]["memory"]
    assert memory["total"] == sum(size for name, size in memory.items() if name != "total")
    assert make_page(plans(profile=CPU), tmp_path).to_json()["stages"][-1]["memory"] is None
