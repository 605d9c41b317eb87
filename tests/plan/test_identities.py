"""What changes which stage's identity, and what does not: one line a field, and every field has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pdforge.plan import identities
from pdforge.plan.build import make_plans
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes
from tests.plan.conftest import CPU, FINETUNE, MakePlans

NOTHING: frozenset[str] = frozenset()
TRAIN = frozenset({"train"})
CAPTURE = TRAIN | {"capture"}
TEACHER = CAPTURE | {"pretrain-teacher"}
ALL = TEACHER | {"tokenize"}

TRAINING = [  # field of `training`, other value, whether it changes the result
    ("tokens", "11k", True),
    ("epochs", "3", False),  # the steps say how often
    ("batch.global", "4", True),
    ("batch.micro", "4", False),
    ("optimizer.learning_rate", "1.0e-3", True),
    ("optimizer.betas", "[0.9, 0.99]", True),
    ("optimizer.eps", "1.0e-6", True),
    ("optimizer.weight_decay", "0.0", True),
    ("optimizer.clip", "2.0", True),
    ("learning_rate_schedule", "{schedule: cosine}", True),
    ("learning_rate_schedule.warmup", "20%", True),
    ("learning_rate_schedule.decay", "30%", True),
    ("learning_rate_schedule.floor", "0.2", True),
    ("precision", "float32", True),
    ("parallelism.data_shard", "1", False),
    ("parallelism.data_replicate", "1", False),
    ("checkpoint.every", "7", False),
    ("checkpoint.keep", "5", False),
    ("checkpoint.interval", "30m", False),
    ("validate_every", "5", False),
    ("activation_checkpointing", "full", False),
    ("compile", "true", False),
    ("loss_chunks", "4", False),
    ("log_every", "1", False),
    ("trackers", "[tensorboard, wandb]", False),
    ("seed", "1", True),
]
SHAPE = [
    ("family", "qwen3", True),
    ("hidden", "48", True),
    ("ffn", "96", True),
    ("layers", "3", True),
    ("heads", "2", True),
    ("kv_heads", "2", True),
    ("kv_heads", "4", False),  # as by default
    ("head_dim", "HIDDEN/4", False),  # as by default
    ("rope_theta", "10000.0", True),
    ("tied_embeddings", "true", True),
]
OTHERS = [
    ("recipe", "other", NOTHING),
    ("description", "text", NOTHING),
    ("data.tokenizer.vocabulary", "310", ALL),
    ("data.sequence_length", "32", ALL),
    ("data.train_tokens", "21k", ALL),
    ("data.validation_tokens", "2k", ALL),
    ("data.seed", "1", ALL),
    ("teacher.truncation.top_p", "0.8", CAPTURE),
    ("teacher.truncation.top_k", "10", CAPTURE),
    ("teacher.logits.shard_sequences", "16", CAPTURE),
    ("objective.loss.kind", "nll", TRAIN),
    ("objective.loss", "{kind: jsd, beta: 0.3}", TRAIN),
    ("objective.tail", "ghost", TRAIN),
    ("objective.token_filter", "{skip_lowest_entropy: 15%}", CAPTURE),  # needs a column
    ("objective.temperature", "{kind: adakd_h}", TRAIN),
    ("objective.temperature", "{kind: scheduled, high: 4, along: {schedule: linear_dec}}", TRAIN),
    ("objective.temperature", "2.0", TRAIN),
    ("objective.alpha", "0.5", TRAIN),
    ("objective.alpha.peak", "0.8", TRAIN),
    ("objective.alpha.warmup", "20%", TRAIN),
    ("objective.alpha.decay", "2%", TRAIN),
    ("teacher.truncation", "{kind: sample, draws: 20}", CAPTURE),
    ("teacher.logits.codec", "lossless", CAPTURE),
    ("teacher.logits.keep", "{top_p: 1.0, top_k: 200}", CAPTURE),
    ("teacher.logits.codec", "rank-gap-63", NOTHING),  # as by default
    ("teacher.logits.columns", "[entropy]", CAPTURE),
    ("expect", "[{source: an earlier run, values: {heldout_loss: 2.5}}]", NOTHING),
]
TABLE = [
    *OTHERS,
    *[(f"teacher.model.architecture.{f}", v.replace("HIDDEN/4", "16"), TEACHER if c else NOTHING) for f, v, c in SHAPE],
    *[(f"student.architecture.{f}", v.replace("HIDDEN/4", "8"), TRAIN if c else NOTHING) for f, v, c in SHAPE],
    *[(f"teacher.model.training.{f}", v, TEACHER if c else NOTHING) for f, v, c in TRAINING],
    # the student's tokens also say how much is captured: its 12k are 23 steps of 8 sequences
    *[(f"training.{f}", v, CAPTURE if f == "tokens" else TRAIN if c else NOTHING) for f, v, c in TRAINING],
]
UNCHANGEABLE = {
    # with one accepted value, or that only several processes can change
    *(
        f"{t}.parallelism.{d}"
        for t in ("training", "teacher.model.training")
        for d in ("tensor", "pipeline", "pipeline_schedule", "pipeline_microbatch", "context")
    ),
    *(f"{t}.optimizer.kind" for t in ("training", "teacher.model.training")),
    *(f"{t}.learning_rate_schedule.schedule" for t in ("training", "teacher.model.training")),
    "objective.alpha.schedule",
    "teacher.model.kind",
    "teachers",  # instead of `teacher`: tests/plan/test_several.py
    "student.initialise",  # its content counts: tests/plan/test_initialise.py
    "student.extend",  # a way to the same numbers: tests/plan/test_extension.py
    "teacher.truncation.kind",
    "teacher.logits.mode",
    "data.tokenizer.kind",
    "data.corpus.kind",
    "data.corpus.path",  # its content counts: tests below
    # instead of `tokens`, and what becomes of the student: tests below
    *(f"{t}.steps" for t in ("training", "teacher.model.training")),
    *("finetune", "export", "evaluate"),
}


def changed(before: Plan, after: Plan) -> set[str]:
    old = {stage.kind: stage.identity for stage in before.stages}
    new = {stage.kind: stage.identity for stage in after.stages}
    assert old.keys() == new.keys()
    return {kind for kind in old if old[kind] != new[kind]}


@pytest.mark.parametrize(("field", "value", "expected"), TABLE, ids=[f"{f}={v}" for f, v, _ in TABLE])
def test_table(plans: MakePlans, field: str, value: str, expected: frozenset[str]) -> None:
    [before], [after] = plans(), plans(f"{field}={value}")
    if field == "training.batch.global":
        # half the batch, twice the steps: another amount may be captured
        assert changed(before, after) in (TRAIN, CAPTURE)
    else:
        assert changed(before, after) == expected
    assert (before.hash != after.hash) == bool(expected)


def test_every_field_of_the_recipe_is_in_the_table(plans: MakePlans) -> None:
    [plan] = plans()
    leaves = set(_leaves(plan.recipe.model_dump(mode="json", by_alias=True)))
    assert leaves - {field for field, _, _ in TABLE} - UNCHANGEABLE == set()


def _leaves(value: Any, path: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [path]
    return [leaf for key, part in value.items() for leaf in _leaves(part, f"{path}.{key}" if path else key)]


def test_where_it_runs_is_left_out(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipes(str(recipe), variants=("pd",))
    [here] = make_plans(loaded, CPU, tmp_path / "runs")
    [there] = make_plans(loaded, Profile(name="other", device="cuda", processes_per_node=4), tmp_path / "elsewhere")
    assert changed(here, there) == NOTHING
    assert here.hash == there.hash
    assert here.stages[-1].job != there.stages[-1].job


def test_content_of_the_corpus_counts(plans: MakePlans, tmp_path: Path) -> None:
    [before] = plans()
    (tmp_path / "corpus" / "a.txt").write_text("another text\n" * 90)
    [after] = plans()
    assert changed(before, after) == ALL


def test_versions_count_in_every_stage(plans: MakePlans, monkeypatch: pytest.MonkeyPatch) -> None:
    [before] = plans()
    monkeypatch.setattr(identities, "TORCHTITAN", "0.4.0")
    [after] = plans()
    assert changed(before, after) == ALL


def test_own_version_counts_in_the_run_only(plans: MakePlans, monkeypatch: pytest.MonkeyPatch) -> None:
    [before] = plans()
    monkeypatch.setattr(identities, "__version__", "99.0")
    [after] = plans()
    assert changed(before, after) == NOTHING
    assert before.hash != after.hash


@pytest.mark.parametrize(
    "override",
    [
        "objective.temperature=3",
        "objective.loss.kind=nll",
        "teacher.truncation.top_k=5",
        "teacher.model.training.seed=4",
    ],
)
def test_the_teacher_is_no_part_of_a_run_without_it(plans: MakePlans, override: str) -> None:
    [before], [after] = plans(variants=("lm",)), plans(override, variants=("lm",))
    assert before.hash == after.hash


def test_steps_are_another_way_to_write_tokens(plans: MakePlans) -> None:
    [before] = plans()
    [same] = plans("training.tokens=null", "training.steps=23", "teacher.model.training={tokens: null, steps: 19}")
    assert (changed(before, same), same.hash) == (NOTHING, before.hash)
    [other] = plans("training.tokens=null", "training.steps=22")
    assert changed(before, other) == CAPTURE


@pytest.mark.parametrize(
    ("after", "named"),
    [
        (FINETUNE, True),
        ("export={format: huggingface}", False),
        ("evaluate={}", False),
        ("evaluate={at: [5]}", False),
    ],
)
def test_what_becomes_of_the_student_changes_no_stage_before_it(plans: MakePlans, after: str, named: bool) -> None:
    """A fine-tuned student makes another run; exports and measurements are added to the one there is."""
    [before], [other] = plans(), plans(after)
    assert [stage.identity for stage in before.stages] == [s.identity for s in other.stages][: len(before.stages)]
    assert (before.hash != other.hash) == named


@pytest.mark.parametrize(
    ("field", "value", "counts"),
    [
        ("optimizer.learning_rate", "1.0e-3", True),
        ("batch.global", "2", True),
        ("seed", "1", True),
        ("epochs", "3", True),  # of fewer conversations
        ("batch.micro", "1", False),
        ("parallelism.data_shard", "1", False),
        ("checkpoint.every", "7", False),
        ("activation_checkpointing", "full", False),
        ("loss_chunks", "4", False),
        ("log_every", "1", False),
    ],
)
def test_of_a_fine_tuning_what_changes_its_result_names_the_run(
    plans: MakePlans, field: str, value: str, counts: bool
) -> None:
    [before], [after] = plans(FINETUNE), plans(FINETUNE, f"finetune.training.{field}={value}")
    assert (before.hash != after.hash) == counts
    assert before.training.identity == after.training.identity


def test_a_live_teacher_counts_without_a_logit_store(plans: MakePlans) -> None:
    live = "teacher.logits={mode: live}"
    [stored], [before] = plans(), plans(live)
    assert [stage.kind for stage in before.stages] == ["tokenize", "pretrain-teacher", "train"]
    assert before.stages[-1].needs == [stage.key for stage in before.stages[:-1]]
    assert before.hash != stored.hash
    for override in ("teacher.model.training.seed=4", "teacher.truncation.top_k=5", "objective.temperature=2"):
        [after] = plans(live, override)
        assert "train" in changed(before, after)


def test_when_distributions_are_captured_counts(plans: MakePlans) -> None:
    [offline], [early], [late] = (
        plans("training.tokens=4k", *more)
        for more in ([], *([f"teacher.logits={{mode: online, from_step: {step}}}"] for step in (2, 3)))
    )
    # the teacher's weights are the same, and what its training leaves is not
    assert changed(offline, early) == changed(early, late) == TEACHER


def test_how_alpha_follows_its_teacher_counts_for_the_student(plans: MakePlans) -> None:
    """What it follows is the store's, and so is the store's identity."""
    online = ("training.tokens=4k", "teacher.logits={mode: online, from_step: 2}")
    alpha = "objective.alpha={{schedule: teacher_convergence, peak: {}, half_at: {}}}"
    [constant], [before] = plans(*online), plans(*online, alpha.format(0.9, 0.1))
    assert changed(constant, before) == TRAIN
    for peak, half_at in ((0.8, 0.1), (0.9, 0.2)):
        assert changed(before, plans(*online, alpha.format(peak, half_at))[0]) == TRAIN
    [other] = plans(*online, "teacher.logits.shard_sequences=8", alpha.format(0.9, 0.1))
    assert changed(before, other) == TEACHER


def test_weights_of_a_mixture_count(plans: MakePlans, tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    sources = [f"{{corpus: {{kind: text, path: {path}/{name}.txt}}, weight: WEIGHT}}" for name in "ab"]
    mixture = f"data.corpus={{kind: mixture, sources: [{', '.join(sources)}]}}"
    [before], [after] = (
        plans(mixture.replace("WEIGHT", "1")),
        plans(mixture.replace("WEIGHT", "1", 1).replace("WEIGHT", "2")),
    )
    assert changed(before, after) == ALL


def test_of_a_hugging_face_teacher_its_weights_count_and_not_how_it_is_held(plans: MakePlans, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "a.gguf", "b.gguf"):
        (folder / name).write_text(name)
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"<|endoftext|>": 0, "a": 1}}}')

    def made(*more: str) -> Plan:
        teacher = f"teacher.model={{kind: huggingface, path: {folder}, {', '.join(more)}}}"
        tokenizer = f"data.tokenizer={{kind: pretrained, path: {folder}, vocabulary: 300}}"
        return plans(teacher, tokenizer, "training.tokens=4k", profile=CPU.with_processes(2))[0]

    before = made()
    for same in ("shard: 2", "trust_remote_code: I read it", "architecture: {hidden: 8, ffn: 8, layers: 1, heads: 1}"):
        assert changed(before, made(same)) == NOTHING
    gguf = made("gguf_file: a.gguf")
    for other in (made("dtype: float32"), gguf):
        assert changed(before, other) == CAPTURE
    assert changed(gguf, made("gguf_file: b.gguf")) == CAPTURE
    (folder / "b.gguf").unlink()  # the other files of its directory are not the model's
    assert changed(gguf, made("gguf_file: a.gguf")) == NOTHING
