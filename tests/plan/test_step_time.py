"""The time of a step: every term by hand, and what makes it longer."""

from __future__ import annotations

import pytest

from pdforge.plan.estimate import model_flops_per_token
from pdforge.plan.jobs import TrainJob
from pdforge.plan.profile import Profile
from pdforge.plan.step_time import StepTime, products_rate, step_time
from pdforge.recipe.sizes import parameter_count
from tests.plan.conftest import MakePlans

RATE = 1e12
LINK, NETWORK = 100e9, 10e9


def job(plans: MakePlans, *overrides: str, nodes: int = 1, a_node: int = 4) -> tuple[TrainJob, Profile]:
    profile = Profile(
        name="gpus",
        executor="slurm",
        device="cuda",
        nodes=nodes,
        processes_per_node=a_node,
        link=int(LINK),
        network=int(NETWORK),
    )
    long = ("data.sequence_length=512", "data.train_tokens=2M", "data.validation_tokens=8k", "training.tokens=1M")
    long += ("training.precision=float32",)
    [plan] = plans("training.batch={global: 64, micro: 4}", *long, *overrides, variants=("lm",), profile=profile)
    found = plan.training.job
    assert isinstance(found, TrainJob)
    return found, profile


def time(plans: MakePlans, *overrides: str, nodes: int = 1, a_node: int = 4) -> StepTime:
    found = step_time(*job(plans, *overrides, nodes=nodes, a_node=a_node), RATE)
    assert found is not None
    return found


def test_products_and_those_made_again(plans: MakePlans) -> None:
    one, _ = job(plans, a_node=1)
    flops = model_flops_per_token(one)
    assert flops
    base = time(plans, a_node=1)
    assert base == (flops * 64 * 512 / RATE, 0, 0, 0, 0, 0)
    for mode, part in (("selective", 1 / 6), ("full", 1 / 3)):
        again = time(plans, f"training.activation_checkpointing={mode}", a_node=1)
        assert again.again == pytest.approx(base.compute * part)
    assert time(plans).compute == pytest.approx(base.compute / 4)


def test_nothing_of_a_frozen_teacher_is_made_again(plans: MakePlans) -> None:
    one, profile = job(plans, "training.activation_checkpointing=full", a_node=1)
    [plan] = plans("teacher.logits={mode: live}")
    assert isinstance(plan.training.job, TrainJob)
    beside = one.model_copy(update={"teacher": plan.training.job.teacher})
    alone, both = step_time(one, profile, RATE), step_time(beside, profile, RATE)
    assert alone is not None
    assert both is not None
    assert both.compute > alone.compute
    assert both.again == alone.again


def test_what_shards_send_is_hidden_but_for_a_block(plans: MakePlans) -> None:
    """Float32: gathered forward and backward, and reduced, 4 bytes each; two blocks, and the ends as a third."""
    one, _ = job(plans)
    weights = parameter_count(one.architecture, one.vocabulary).total
    a_micro_step = weights * 12 * 3 / 4 / (0.7 * LINK)
    assert time(plans).shards == pytest.approx(4 * a_micro_step / 3)
    # eight ranks of two nodes: a group has four ways out of a node
    apart = weights * 12 * 7 / 8 / (0.7 * 4 * NETWORK)
    assert time(plans, nodes=2).shards == pytest.approx(2 * apart / 3)


def test_what_replicas_send(plans: MakePlans) -> None:
    one, _ = job(plans)
    weights = parameter_count(one.architecture, one.vocabulary).total
    shards = weights * 12 * 1 / 2 / (0.7 * LINK)
    replicas = 2 * 4 * weights / 2 * 1 / 2 / (0.7 * LINK)
    halves = time(plans, "training.parallelism={data_replicate: 2}")
    assert halves.shards == pytest.approx(4 * (shards + replicas) / 3)


def test_what_tensor_parallelism_sends(plans: MakePlans) -> None:
    """Hidden 32, float32, 64 sequences of 512 on one pair or, of four ranks, 32 on each of two."""
    both = time(plans, "training.parallelism={tensor: 2}", a_node=2)
    assert both.tensor == pytest.approx(8 * 3 * 4 * 64 * 512 * 32 / 2 / (0.7 * LINK))
    again = time(plans, "training.parallelism={tensor: 2}", "training.activation_checkpointing=full", a_node=2)
    assert again.tensor == pytest.approx(both.tensor * 12 / 8)
    # a group of two nodes has one way out where each holds one of its ranks
    apart = time(plans, "training.parallelism={tensor: 2}", nodes=2, a_node=1)
    assert apart.tensor == pytest.approx(both.tensor * LINK / NETWORK)


def test_what_context_parallelism_sends(plans: MakePlans) -> None:
    both = time(plans, "training.parallelism={context: 2}", a_node=2)
    mine = 64 * 256 * 2 * 32 * 4
    assert both.context == pytest.approx(2 * 2 * mine / (0.7 * LINK))


def test_a_pipeline_waits(plans: MakePlans) -> None:
    deep = "student.architecture={hidden: 32, ffn: 64, layers: 6, heads: 4}"
    flat = time(plans, deep, "training.parallelism={pipeline: 2}", a_node=2)
    assert flat.pipeline > flat.compute / 4
    fuller = time(plans, deep, "training.parallelism={pipeline: 2}", "training.batch={global: 64, micro: 16}", a_node=2)
    assert fuller.pipeline < flat.pipeline
    assert fuller.compute == flat.compute


@pytest.mark.parametrize(
    "override",
    [
        "training.activation_checkpointing=full",
        "training.parallelism={tensor: 2, data_replicate: 2}",
        "training.parallelism={pipeline: 2}",
        "training.parallelism={context: 2}",
    ],
)
def test_the_rate_of_products_is_found_from_what_a_whole_step_reaches(plans: MakePlans, override: str) -> None:
    one, profile = job(plans, "student.architecture={hidden: 32, ffn: 64, layers: 6, heads: 4}", override)
    whole, flops = step_time(one, profile, RATE), model_flops_per_token(one)
    assert whole is not None
    assert flops is not None
    reached = flops * 64 * 512 / one.processes / whole.total
    assert reached < RATE
    assert products_rate(one, profile, reached) == pytest.approx(RATE)


def test_no_more_than_three_quarters_of_a_step_are_taken_for_waiting(plans: MakePlans) -> None:
    one, profile = job(plans, "training.parallelism={tensor: 2}")
    slow = profile.model_copy(update={"link": 1})
    assert products_rate(one, slow, RATE) == pytest.approx(4 * RATE)


def test_links_that_are_unknown_send_for_nothing(plans: MakePlans) -> None:
    one, profile = job(plans, "training.parallelism={tensor: 2}")
    unknown = profile.model_copy(update={"link": None, "network": None})
    found = step_time(one, unknown, RATE)
    assert found is not None
    assert found.total == found.compute
