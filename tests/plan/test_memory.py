"""Peak memory by arithmetic, against counts done another way; and what is said where it does not fit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pdforge.plan.advice import advice
from pdforge.plan.fitting import fit, ways_to_fit
from pdforge.plan.jobs import CaptureJob, HuggingFaceSource, TrainJob
from pdforge.plan.memory import ACTIVATIONS, STATIC, block_tensors, capture_memory, training_memory
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile
from pdforge.recipe.sizes import parameter_count
from tests.plan.conftest import MakePlans

GPU = Profile(name="gpu", device="cuda", processes_per_node=1, gpu="H100")


def job(plans: MakePlans, *overrides: str, processes: int = 1) -> TrainJob:
    profile = GPU.model_copy(update={"processes_per_node": processes})
    [plan] = plans("training.batch={global: 64, micro: 2}", *overrides, variants=("lm",), profile=profile)
    found = plan.training.job
    assert isinstance(found, TrainJob)
    return found


def static(one: TrainJob) -> int:
    return training_memory(one).static


def test_on_one_device_every_parameter_takes_sixteen_bytes(plans: MakePlans) -> None:
    for override in ("student.architecture.layers=2", "student.architecture.layers=3"):
        one = job(plans, override)
        assert static(one) == 16 * parameter_count(one.architecture, one.vocabulary).total


@pytest.mark.parametrize("processes", [2, 4, 8, 32])
def test_shards_are_rounded_up_along_the_first_dimension(plans: MakePlans, processes: int) -> None:
    """hidden 32, ffn 64, 2 blocks of 4 heads, vocabulary 300: every tensor by hand."""
    one = job(plans, processes=processes)
    shapes = [(300, 32), (300, 32), (32, 1)] + 2 * (
        [(32, 32)] * 4 + [(64, 32), (64, 32), (32, 64)] + [(32, 1), (32, 1)]
    )
    assert static(one) == 16 * sum(math.ceil(rows / processes) * columns for rows, columns in shapes)


def test_replicas_hold_the_same_and_tensor_parallel_ranks_parts(plans: MakePlans) -> None:
    whole = static(job(plans))
    replicated = job(plans, "training.parallelism={data_replicate: 2, data_shard: 1}", processes=2)
    assert static(replicated) == whole
    tensor = job(plans, "training.parallelism={tensor: 2}", processes=2)
    norms = 16 * 5 * 32
    assert static(tensor) == (whole - norms) // 2 + norms
    long = (
        "data={corpus: {kind: python-stdlib}, tokenizer: {kind: trained, vocabulary: 300}, sequence_length: 512,"
        " train_tokens: 2M, validation_tokens: 8k}",
        "training.tokens=1M",
    )
    context = job(plans, "training.parallelism={context: 2}", *long, processes=2)
    assert static(context) == static(job(plans, *long, processes=2))
    assert parts(context)[ACTIVATIONS] * 2 == parts(job(plans, *long, processes=2))[ACTIVATIONS]


def parts(one: TrainJob) -> dict[str, int]:
    return dict(training_memory(one).parts)


def test_what_makes_the_peak_smaller(plans: MakePlans) -> None:
    base = parts(job(plans))
    modes = [parts(job(plans, f"training.activation_checkpointing={mode}")) for mode in ("selective", "full")]
    kept = [base[ACTIVATIONS], *(part[ACTIVATIONS] for part in modes)]
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == 3
    smaller = parts(job(plans, "training.batch={global: 64, micro: 1}"))
    assert smaller[ACTIVATIONS] * 2 == base[ACTIVATIONS]
    # the part in chunks falls with their number, the rest stays
    chunked = [sum(parts(job(plans, f"training.loss_chunks={chunks}")).values()) for chunks in (1, 8)]
    assert chunked[1] < chunked[0]
    for mode in modes:
        assert {name: base[name] for name in STATIC} == {name: mode[name] for name in STATIC}


def test_the_teachers_entries_are_counted(plans: MakePlans) -> None:
    [plan] = plans(profile=GPU)
    assert isinstance(plan.training.job, TrainJob)
    assert parts(plan.training.job)["teacher"] == 2 * 4 * (1 + 2 * 20) * 2 * 64


def test_a_capture_holds_the_weights_as_they_reach_the_device(plans: MakePlans) -> None:
    """torchtitan's in float32; those of a Hugging Face model in its dtype, its layers in shards where it has some."""
    [plan] = plans("teacher.model.architecture.layers=16", profile=GPU)
    captured = plan.captures[0].job
    assert isinstance(captured, CaptureJob)
    shape, vocabulary, length = captured.teacher.architecture, 300, captured.teacher.sequence_length
    assert shape is not None
    total, block = parameter_count(shape, vocabulary).total, sum(each.local(1, 1) for each in block_tensors(shape))

    def weights(one: CaptureJob) -> int:
        found = capture_memory(one)
        assert found is not None
        return dict(found.parts)["parameters"]

    def published(shard: int) -> CaptureJob:
        source = HuggingFaceSource.model_construct(
            architecture=shape, vocabulary=vocabulary, sequence_length=length, shard=shard
        )
        return captured.model_copy(update={"teacher": source})

    assert captured.precision == "bfloat16"
    assert weights(captured) == 4 * total
    assert weights(published(1)) == 2 * total
    assert weights(published(4)) == 2 * (total - 16 * block + 16 * block // 4 + 2 * block)


def findings(plan: Plan) -> dict[str, str]:
    return {each.code: each.help for each in advice(plan, Path("/none"))}


def test_what_does_not_fit_is_said_with_what_would(plans: MakePlans) -> None:
    deep = "student.architecture.layers=24"
    one = job(plans, deep)
    total, sure = training_memory(one).total, sum(parts(one)[name] for name in (*STATIC, ACTIVATIONS))

    def said(offered: int) -> dict[str, str]:
        profile = GPU.model_copy(update={"gpu_memory": offered})
        [plan] = plans("training.batch={global: 64, micro: 2}", deep, variants=("lm",), profile=profile)
        return findings(plan)

    assert said(2 * total) == {}
    assert list(said(total)) == ["PD172"]
    never = said(sure - 1)
    assert list(never) == ["PD173"]
    assert "training.activation_checkpointing=selective" in never["PD173"]
    assert "spread the model" in said(1000)["PD173"]
    [plan] = plans("training.batch={global: 64, micro: 2}", deep, variants=("lm",), profile=GPU)
    for way in ways_to_fit(one, plan.recipe, sure - 1):
        assert not fit(
            job(plans, f"training.{way.replace('batch.micro=1', 'batch={global: 64, micro: 1}')}"), sure
        ).tight


@pytest.mark.parametrize(
    ("parallelism", "micro", "refused"),
    [
        # three micro-batches for four places
        ("{pipeline: 4, pipeline_microbatch: 2}", 12, "batch.micro=6"),
        # taken in rounds of four
        ("{pipeline: 4, pipeline_schedule: interleaved_1f1b}", 12, "batch.micro=6"),
        # a device has 256 tokens of a sequence
        ("{context: 4}", 8, "loss_chunks=512"),
    ],
)
def test_what_a_rule_forbids_is_not_proposed(plans: MakePlans, parallelism: str, micro: int, refused: str) -> None:
    long = ("data.sequence_length=1024", "data.train_tokens=2M", "data.validation_tokens=8k", "training.tokens=1M")
    made = (f"training.parallelism={parallelism}", f"training.batch={{global: 24, micro: {micro}}}")
    more = ("training.loss_chunks=256", "student.architecture.layers=24", "data.tokenizer.vocabulary=100000")
    [plan] = plans(*long, *made, *more, profile=GPU.with_processes(4))
    one = plan.training.job
    assert isinstance(one, TrainJob)
    offered = int(training_memory(one).total / 0.95) - 1
    assert fit(one, offered).tight
    ways = ways_to_fit(one, plan.recipe, offered)
    assert "activation_checkpointing=selective" in ways
    assert refused not in ways


def test_without_a_gpu_nothing_is_said(plans: MakePlans) -> None:
    [plan] = plans(variants=("lm",), profile=GPU.model_copy(update={"gpu": None}))
    assert findings(plan) == {}
    [cpu] = plans(variants=("lm",), profile=GPU.model_copy(update={"device": "cpu", "gpu_memory": 1}))
    assert findings(cpu) == {}
