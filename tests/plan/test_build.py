from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.errors import EnvironmentFault, RecipeError, UsageError
from pdforge.plan.jobs import CaptureJob, TokenizeJob, TrainJob
from pdforge.plan.model import Plan, merged_stages
from pdforge.plan.profile import Profile
from tests.plan.conftest import CPU, MakePlans


def test_stages_and_what_they_need(plans: MakePlans) -> None:
    [plan] = plans()
    assert [stage.kind for stage in plan.stages] == ["tokenize", "pretrain-teacher", "capture", "train"]
    tokenize, teacher, capture, train = plan.stages
    assert (tokenize.needs, teacher.needs) == ([], [tokenize.key])
    assert (capture.needs, train.needs) == ([tokenize.key, teacher.key], [tokenize.key, capture.key])
    assert [stage.shared for stage in plan.stages] == [True, True, True, False]
    assert train.directory == f"small-pd-{plan.hash}/train"
    assert all(
        stage.key == f"{stage.kind}:{stage.identity}" == f"{stage.job.kind}:{stage.job.identity}"
        for stage in plan.stages
    )


def test_steps_and_sequences(plans: MakePlans, tmp_path: Path) -> None:
    [plan] = plans()
    tokenize, teacher, capture, train = (stage.job for stage in plan.stages)
    assert isinstance(tokenize, TokenizeJob)
    assert isinstance(teacher, TrainJob)
    assert isinstance(capture, CaptureJob)
    assert isinstance(train, TrainJob)
    assert (tokenize.train_sequences, tokenize.validation_sequences) == (20_000 // 64, 1_000 // 64)
    assert (teacher.steps, train.steps) == (10_000 // (8 * 64), 12_000 // (8 * 64))
    assert capture.sequences == train.steps * 8
    assert capture.sequences <= tokenize.train_sequences
    assert capture.teacher.checkpoint == str(tmp_path / "runs" / plan.stages[1].directory / "output" / "checkpoint")
    assert capture.teacher.step == teacher.steps
    assert train.logits == capture.output
    assert train.tokens == capture.tokens == tokenize.output
    assert train.truncation == capture.truncation
    assert teacher.objective is None


def test_without_weight_for_the_teacher_nothing_is_captured(plans: MakePlans) -> None:
    [plan] = plans(variants=("lm",))
    assert [stage.kind for stage in plan.stages] == ["tokenize", "train"]
    job = plan.stages[-1].job
    assert isinstance(job, TrainJob)
    assert (job.logits, job.truncation) == (None, None)
    assert plan.figures.teacher is None


def test_variants_share_stages(plans: MakePlans) -> None:
    both = plans(variants=())
    assert [plan.label for plan in both] == ["lm", "pd"]
    merged = merged_stages(both)
    assert [stage.kind for stage in merged] == ["tokenize", "pretrain-teacher", "capture", "train", "train"]
    assert both[0].hash != both[1].hash


def test_a_teacher_that_exists_is_not_trained(plans: MakePlans, tmp_path: Path) -> None:
    shape = "{hidden: 64, ffn: 128, layers: 4, heads: 4}"
    override = f"teacher.model={{kind: torchtitan, path: {tmp_path}/old, step: 7, architecture: {shape}}}"
    with pytest.raises(EnvironmentFault, match=r"no torchtitan checkpoint at .*/old/step-7") as caught:
        plans(override)
    assert "steps there: none" in caught.value.remedy

    weights = tmp_path / "old" / "step-7" / "__0_0.distcp"
    weights.parent.mkdir(parents=True)
    (weights.parent / ".metadata").write_bytes(b"meta")
    weights.write_bytes(b"one")
    [plan] = plans(override)
    assert [stage.kind for stage in plan.stages] == ["tokenize", "capture", "train"]
    weights.write_bytes(b"two")
    [other] = plans(override)
    assert plan.stages[0].identity == other.stages[0].identity
    assert plan.stages[1].identity != other.stages[1].identity


def test_plan_survives_json(plans: MakePlans) -> None:
    for plan in plans(variants=()):
        assert Plan.model_validate_json(plan.model_dump_json()) == plan
        text = json.dumps(plan.model_dump(mode="json", by_alias=True))
        assert Plan.model_validate_json(text) == plan


def test_batch_that_does_not_divide(plans: MakePlans) -> None:
    with pytest.raises(UsageError) as caught:
        plans(profile=Profile(name="local", processes_per_node=3))
    assert "8 sequences (global)" in caught.value.message
    assert "2 × 3 = 6" in caught.value.message
    assert "global 6 or 12" in caught.value.remedy
    assert "--processes 1, 2" in caught.value.remedy


def test_what_the_refusal_accepts_is_accepted(plans: MakePlans) -> None:
    eight = Profile(name="local", processes_per_node=8)
    with pytest.raises(UsageError) as caught:
        plans(profile=eight, variants=("lm",))
    assert "global 16" in caught.value.remedy
    assert "micro 1" in caught.value.remedy
    assert plans("training.batch.global=16", profile=eight, variants=("lm",))
    assert plans("training.batch.micro=1", profile=eight, variants=("lm",))


def test_tokenize_has_as_many_tasks_as_there_are_files_and_processes(plans: MakePlans, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "corpus" / f"large{number}.txt").write_bytes(b"a word\n" * 2_500_000)
    four, two = (Profile(name="local", processes_per_node=number) for number in (4, 2))
    [one], [wide], [narrow] = (plans(variants=("lm",), profile=profile) for profile in (CPU, four, two))
    assert [plan.stages[0].processes for plan in (one, wide, narrow)] == [1, 3, 2]
    assert len({plan.stages[0].identity for plan in (one, wide, narrow)}) == 1
    nodes = Profile(name="slurm", executor="slurm", nodes=2, processes_per_node=2)
    assert plans(variants=("lm",), profile=nodes)[0].stages[0].processes == 2
    assert plans("data.corpus={kind: python-stdlib}", variants=("lm",), profile=two)[0].stages[0].processes == 1


def test_parallelism_must_make_up_the_processes(plans: MakePlans) -> None:
    two = Profile(name="local", processes_per_node=2)
    with pytest.raises(UsageError, match="shard 4"):
        plans("training.parallelism.data_shard=4", profile=two)
    [plan] = plans("training.parallelism.tensor=2", "teacher.model.training.parallelism.tensor=2", profile=two)
    assert plan.stages[-1].processes == 2


def test_too_few_tokens(plans: MakePlans) -> None:
    with pytest.raises(RecipeError, match="token"):
        plans("data.train_tokens=100")


def test_several_epochs_are_steps_and_capture_each_sequence_once(plans: MakePlans) -> None:
    """20k tokens are 312 sequences of 64, and a step takes 8."""
    twice = ("training.tokens=null", "training.epochs=2")
    [plan] = plans(*twice)
    train, capture = plan.stages[-1].job, plan.stages[-2].job
    assert isinstance(train, TrainJob)
    assert isinstance(capture, CaptureJob)
    assert (train.steps, capture.sequences) == (2 * 312 // 8, 312)
    # a third epoch needs no other store, and the same steps are the same run however many are allowed
    [longer], [allowed] = plans("training.tokens=null", "training.epochs=3"), plans(*twice, "training.steps=78")
    assert longer.stages[-2].identity == plan.stages[-2].identity
    assert longer.hash != plan.hash == allowed.hash


def test_the_end_of_the_data_is_found_by_the_plan(plans: MakePlans) -> None:
    """A rule counts tokens; here whole sequences count: 624, and the tokens would make 625."""
    fit = "data.train_tokens=20030"  # 312 sequences and a part of one
    assert plans("training.tokens=null", "training.epochs=2", "training.steps=78", fit)
    with pytest.raises(UsageError, match=r"625 sequences, but data\.train_tokens 20,030 makes 312, 2 times") as caught:
        plans(
            "training.tokens=null",
            "training.epochs=2",
            "training.steps=625",
            "training.batch={global: 1, micro: 1}",
            fit,
        )
    assert "training.epochs" in caught.value.remedy


def test_variants_that_are_one_run_are_refused(recipe: Path, plans: MakePlans) -> None:
    recipe.write_text(recipe.read_text() + "  twin: {training: {log_every: 3}}\n")
    with pytest.raises(UsageError, match="'pd' and 'twin'"):
        plans(variants=())
    assert len(plans(variants=("lm", "twin"))) == 2


def test_local_tokenizer(plans: MakePlans, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    override = f"data.tokenizer={{kind: pretrained, path: {file}}}"
    with pytest.raises(EnvironmentFault, match="there is no"):
        plans(override)
    file.write_text("{}")
    with pytest.raises(EnvironmentFault, match="not a saved tokenizer"):
        plans(override)
    vocabulary = {f"token{n}": n for n in range(290)}
    file.write_text(
        json.dumps({"model": {"vocab": vocabulary}, "added_tokens": [{"id": 290, "content": "<|endoftext|>"}]})
    )
    [plan] = plans(override)
    job = plan.stages[-1].job
    assert isinstance(job, TrainJob)
    assert job.vocabulary == 291
    with pytest.raises(UsageError, match="291 tokens"):
        plans(f"data.tokenizer={{kind: pretrained, path: {file}, vocabulary: 100}}")


def test_jobs_name_local_files_absolutely(plans: MakePlans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {f"token{n}": n for n in range(300)}}}))
    [plan] = plans(
        "data.corpus.path=corpus/a.txt",
        "data.tokenizer={kind: pretrained, path: tokenizer.json}",
    )
    job = plan.stages[0].job
    assert isinstance(job, TokenizeJob)
    assert [corpus.path for corpus in job.corpus if corpus.kind == "text"] == [str(tmp_path / "corpus" / "a.txt")]
    assert job.tokenizer.kind == "pretrained"
    assert job.tokenizer.path == str(tmp_path / "tokenizer.json")


def test_hub_tokenizer_needs_its_size(plans: MakePlans) -> None:
    with pytest.raises(UsageError, match="not known before it is downloaded"):
        plans("data.tokenizer={kind: pretrained, path: zai-org/glm-4-9b-hf, revision: abc}")
