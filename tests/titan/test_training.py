"""Real trainings on gloo: every parallelism, resumed on another number of processes, and what stops them.

All of them distil from a logit store, on packed documents, from the weights that a run on one process began with.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save, torch_save_to_dcp

import pdforge.titan
from pdforge.layout import StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.jobs import TrainJob
from pdforge.plan.model import Plan
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes
from pdforge.titan.huggingface import huggingface_config, huggingface_weights
from pdforge.titan.inference import FrozenModel
from pdforge.titan.models import decoder_of
from tests.stages.conftest import pdforge, results, rows
from tests.titan.conftest import RECIPE, Bench, checkpoints

pytestmark = pytest.mark.slow

TOLERANCE = {
    **dict.fromkeys(("loss", "lm_loss", "kd_loss", "kl", "heldout_loss", "kept_mass", "temperature", "alpha"), 1e-5),
    "learning_rate": 1e-5,
    "grad_norm": 1e-4,
    "agreement": 1e-2,  # a share of positions: rounding may turn one of thousands
}
"""Relative, by column: all that a row has but the clock's."""
SPREAD = "training.parallelism."
INTERLEAVED = (SPREAD + "pipeline=2", SPREAD + "pipeline_schedule=interleaved_1f1b")
HALF = "teacher.model.training.batch.micro=2"
"""What four processes can share of the teacher's batch."""
WAYS: dict[str, tuple[int, tuple[str, ...]]] = {
    "FSDP 2": (2, ()),
    "TP 2": (2, (SPREAD + "tensor=2",)),
    "CP 2": (2, (SPREAD + "context=2",)),
    "PP 2": (2, (SPREAD + "pipeline=2",)),
    "PP 2 interleaved": (2, INTERLEAVED),
    "HSDP 2": (2, (SPREAD + "data_replicate=2", SPREAD + "data_shard=1")),
    "TP 2 x FSDP 2": (4, (SPREAD + "tensor=2", HALF)),
    "PP 2 x FSDP 2": (4, (SPREAD + "pipeline=2", HALF)),
    "CP 2 x FSDP 2": (4, (SPREAD + "context=2", HALF)),
    "selective activation checkpointing": (1, ("training.activation_checkpointing=selective",)),
    "full activation checkpointing": (1, ("training.activation_checkpointing=full",)),
}


def _assert_alike(found: list[dict[str, Any]], straight: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in found] == [row["step"] for row in straight]
    for row, other in zip(found, straight, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"step", "tokens"}:
            assert row[name] == pytest.approx(other[name], rel=TOLERANCE[name]), (row["step"], name)


@pytest.mark.parametrize("way", WAYS)
def test_the_numbers_of_one_process(bench: Bench, tmp_path: Path, way: str) -> None:
    """Ten steps and two held-out measurements: losses to 1e-5, gradient norms to 1e-4, and every other metric."""
    processes, sets = WAYS[way]
    bench.train(tmp_path, processes=processes, sets=sets)
    assert len(bench.straight) == 12
    _assert_alike(rows(StageDirectory(tmp_path)), bench.straight)


def test_the_diff_of_a_resumed_runs_metrics_is_empty(bench: Bench, tmp_path: Path) -> None:
    """One process, stopped after step 5 and started again: without the clock's column the files are the same bytes."""
    for last in ("5", "10"):
        bench.train(tmp_path, "--training.steps", last)
    files = []
    for name, found in (("straight", bench.straight), ("resumed", rows(StageDirectory(tmp_path)))):
        files.append(tmp_path / name)
        files[-1].write_text("".join(f"{json.dumps(row)}\n" for row in found))
    done = subprocess.run(["diff", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_compiled_in_the_trainer(bench: Bench, tmp_path: Path) -> None:
    """Model and loss by inductor: the numbers of the eager run."""
    bench.train(tmp_path, "--training.steps", "2", sets=("training.compile=true",))
    found = [row for row in rows(StageDirectory(tmp_path)) if "loss" in row]
    _assert_alike(found, [row for row in bench.straight if "loss" in row][:2])


def test_two_processes_then_one_then_two(bench: Bench, tmp_path: Path) -> None:
    for processes, last in ((2, "4"), (1, "7"), (2, "10")):
        bench.train(tmp_path, "--training.steps", last, processes=processes)
        assert f"step-{last}" in checkpoints(tmp_path)
    found = [row for row in rows(StageDirectory(tmp_path)) if "loss" in row]
    _assert_alike(found, [row for row in bench.straight if "loss" in row])


def test_resumed_in_the_second_epoch(bench: Bench, tmp_path: Path) -> None:
    """93 sequences: step 12 reads the last of the first epoch and the first of the second, bit for bit as straight."""
    twice = ("objective.alpha=0", "training.epochs=2", "training.steps=14", "training.checkpoint.every=100")
    bench.train(tmp_path / "straight", sets=twice)
    for last in ("11", "12", "14"):
        bench.train(tmp_path / "stopped", "--training.steps", last, sets=twice)
    straight, stopped = (
        [row for row in rows(StageDirectory(tmp_path / name)) if "loss" in row] for name in ("straight", "stopped")
    )
    assert [row["step"] for row in straight] == list(range(1, 15))
    assert stopped == straight


def test_a_finished_run_is_extended(bench: Bench, tmp_path: Path) -> None:
    """From 6 steps to 10, from step 5, whose checkpoint has the decayed rate of a sixth in it, which here is none."""

    def sets(steps: int, *more: str) -> tuple[str, ...]:
        rate = f"training.learning_rate_schedule={{schedule: wsd, warmup: {2 / steps}, decay: {2 / steps}}}"
        return (f"training.steps={steps}", rate, "objective.alpha=0.6", "training.checkpoint.every=100", *more)

    def run(*fields: str) -> tuple[Plan, StageDirectory]:
        chosen = [each for field in fields for each in ("--set", field)]
        pdforge("run", RECIPE, "--root", bench.root, "--processes", "1", *chosen)
        [plan] = make_plans(load_recipes(str(RECIPE), overrides=fields), local_profile(1), bench.root)
        return plan, StageDirectory(bench.root / plan.training.directory)

    short, finished = run(*sets(6))
    assert finished.whole_checkpoints == [5, 6]
    bench.train(tmp_path, sets=sets(10), seeded=False)
    straight = StageDirectory(tmp_path)
    _, extended = run(*sets(10, "student.extend=true"))
    assert json.loads(extended.extended.read_text()) == {"run": short.directory, "step": 5}
    assert results(extended)["extends"] == {"run": short.directory, "step": 5}
    assert extended.whole_checkpoints == straight.whole_checkpoints == [9, 10]
    assert len(rows(extended)) == 12
    assert rows(extended) == rows(straight)
    states = []
    for stage in (extended, straight):
        dcp_to_torch_save(stage.checkpoint(10), plain := tmp_path / "plain.pt")
        states.append(torch.load(plain, weights_only=False))
    _assert_same_bits(*states)
    # it is itself one to go on from, and one that is not alike is not gone on from
    warm = sets(9, "training.learning_rate_schedule.warmup=50%", "student.extend=true")
    done = pdforge("plan", RECIPE, "--root", bench.root, "--processes", "1", *(f"--set={field}" for field in warm))
    said = " ".join(done.stdout.split())
    assert "cannot be extended: the learning rate (wsd) differs from step 1 on (warm-up: 2 steps there, 4 here" in said


def _assert_same_bits(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_same_bits(one[key], other[key])
    else:
        assert one == other


@pytest.mark.parametrize("processes", [1, 2])
def test_a_student_starts_from_weights(bench: Bench, tmp_path: Path, processes: int) -> None:
    """Of the finished run, as a checkpoint and in Hugging Face's form: the same student, bit for bit, and no other."""
    [plan] = make_plans(load_recipes(str(RECIPE)), local_profile(1), bench.root)
    job = plan.stages[-1].job
    assert isinstance(job, TrainJob)
    folder, hf = StageDirectory(bench.root / plan.stages[-1].directory).checkpoints, tmp_path / "hf"
    spec = decoder_of(job.architecture, vocabulary=job.vocabulary, sequence_length=job.sequence_length)
    model = FrozenModel(spec, weights=folder / "step-10", device=torch.device("cpu"), dtype=torch.float32)
    hf.mkdir()
    save_file(huggingface_weights(model), hf / "model.safetensors")
    rope = job.architecture.rope_theta
    config = huggingface_config(spec, sequence_length=512, rope_theta=rope, dtype="float32", separator=0)
    (hf / "config.json").write_text(json.dumps(config))
    found = []
    for start in (f"{{kind: torchtitan, path: {folder}, step: 10}}", f"{{kind: huggingface, path: {hf}}}"):
        directory = tmp_path / str(len(found))
        sets = (f"student.initialise={start}",)
        bench.train(directory, "--training.steps", "2", processes=processes, sets=sets, seeded=False)
        found.append(rows(StageDirectory(directory)))
    assert found[0] == found[1]
    first, scratch = found[0][0], bench.straight[0]
    assert first["step"] == scratch["step"] == 1
    assert first["lm_loss"] < 0.99 * scratch["lm_loss"]
    # resumed, it goes on from its own checkpoint: the weights to start from are not looked at again
    (hf / "model.safetensors").write_bytes(b"damaged")
    bench.train(directory, "--training.steps", "3", processes=processes, sets=sets, seeded=False)
    assert [row["step"] for row in rows(StageDirectory(directory)) if "loss" in row] == [1, 2, 3]
    errors = bench.train(tmp_path / "damaged", processes=processes, sets=sets, seeded=False, check=False)
    assert f"cannot read the weights in {hf}" in errors


def test_a_changed_recipe_does_not_resume(bench: Bench, tmp_path: Path) -> None:
    bench.train(tmp_path, "--training.steps", "1")
    errors = bench.train(tmp_path, sets=("objective.temperature=2",), check=False)
    assert "the checkpoint of step 1 is of another training than this one (loss." in errors
    assert "temperature: 1.0 there, 2.0 here)" in errors
    assert checkpoints(tmp_path) == {"step-1"}


def test_checkpoints_by_time(bench: Bench, tmp_path: Path) -> None:
    """Every step takes longer than a microsecond: all are saved, and the oldest are removed."""
    bench.train(tmp_path, "--checkpoint.seconds", "1e-6", "--checkpoint.interval", "1000", "--training.steps", "4")
    assert {"step-3", "step-4"} <= checkpoints(tmp_path)
    assert "step-1" not in checkpoints(tmp_path)


def _change_weights(checkpoint: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Damage a checkpoint."""
    plain = checkpoint.parent.parent / "plain.pt"
    dcp_to_torch_save(checkpoint, plain)
    weights = torch.load(plain, weights_only=False)
    change(weights)
    torch.save(weights, plain)
    torch_save_to_dcp(plain, checkpoint)


def test_a_loss_that_is_not_finite_stops_before_the_optimizer(bench: Bench, tmp_path: Path) -> None:
    """Step 2 reads samples 8 to 15 in micro batches of 2."""

    def damage(weights: dict[str, Any]) -> None:
        weights["norm.weight"][0] = torch.nan

    bench.train(tmp_path, "--training.steps", "1")
    _change_weights(StageDirectory(tmp_path).checkpoints / "step-1", damage)
    errors = bench.train(tmp_path, check=False)
    assert "the loss of step 2 is not finite (rank 0, samples 8-9, 10-11, 12-13, 14-15)" in errors
    assert checkpoints(tmp_path) == {"step-1"}


@pytest.mark.parametrize("way", ["one process", "FSDP 2"])
def test_a_gradient_that_overflows_stops_before_the_optimizer(bench: Bench, tmp_path: Path, way: str) -> None:
    """The same logits from a tiny norm and a huge output projection: its gradient has no norm in float32."""

    def damage(weights: dict[str, Any]) -> None:
        weights["norm.weight"] *= 1e-30
        weights["lm_head.weight"] *= 1e30

    processes, sets = WAYS.get(way, (1, ()))
    bench.train(tmp_path, "--training.steps", "1")
    _change_weights(StageDirectory(tmp_path).checkpoints / "step-1", damage)
    errors = bench.train(tmp_path, "--checkpoint.interval", "1", processes=processes, sets=sets, check=False)
    assert "the gradient norm of step 2 is inf, and its losses are finite (samples 8-15)" in errors
    assert checkpoints(tmp_path) == {"step-1"}
