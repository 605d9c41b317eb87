"""Weights that a student starts from: named by their content, and refused where they are of another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pdforge.errors import EnvironmentFault
from pdforge.plan.jobs import CaptureJob, ModelSource, TrainJob
from pdforge.plan.model import Plan
from tests.plan.conftest import MakePlans

CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 300,
}
SHARDS = {"model.embed_tokens.weight": "model-1.safetensors", "lm_head.weight": "model-2.safetensors"}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    _write(folder, {})
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def _write(folder: Path, changes: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))


def _from(folder: Path) -> str:
    return f"student.initialise={{kind: huggingface, path: {folder}}}"


def _job(plan: Plan) -> TrainJob:
    stage = plan.stage("train")
    assert stage is not None
    assert isinstance(stage.job, TrainJob)
    return stage.job


def test_content_counts_and_place_does_not(plans: MakePlans, weights: Path, tmp_path: Path) -> None:
    [scratch], [before] = plans(), plans(_from(weights))
    assert before.stages[-1].identity != scratch.stages[-1].identity
    assert [stage.identity for stage in before.stages[:-1]] == [stage.identity for stage in scratch.stages[:-1]]
    initial = _job(before).initial
    assert initial is not None
    assert (initial.kind, initial.path) == ("huggingface", str(weights))
    assert _job(scratch).initial is None
    moved = weights.rename(tmp_path / "moved")
    assert plans(_from(moved))[0].hash == before.hash
    (moved / "model.safetensors").write_bytes(b"others!")
    assert plans(_from(moved))[0].hash != before.hash


def test_of_a_checkpoint_only_its_step_counts(plans: MakePlans, tmp_path: Path) -> None:
    for step in (5, 10):
        (tmp_path / f"step-{step}").mkdir()
        (tmp_path / f"step-{step}" / ".metadata").write_bytes(b"%d" % step)
    start = f"student.initialise={{kind: torchtitan, path: {tmp_path}, step: "
    [before] = plans(start + "5}")
    assert before.hash != plans(start + "10}")[0].hash
    (tmp_path / "step-10" / "more").write_bytes(b"more")
    assert before.hash == plans(start + "5}")[0].hash
    initial = _job(before).initial
    assert initial is not None
    assert initial.path == str(tmp_path / "step-5")
    with pytest.raises(EnvironmentFault, match=r"student.initialise.path: no .* at .*step-7") as caught:
        plans(start + "7}")
    assert "step-10, step-5" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type gpt2, student.architecture.family is llama"),
        ({"hidden_size": 64}, "hidden_size 64, student.architecture.hidden is 32"),
        ({"num_attention_heads": 2}, "num_attention_heads 2, student.architecture.heads is 4"),
        ({"num_key_value_heads": 2}, "num_key_value_heads 2, student.architecture.kv_heads is 4"),
        ({"head_dim": 16}, "head_dim 16, student.architecture.head_dim is 8"),
        ({"rope_theta": 10000.0}, "rope_theta 10000.0, student.architecture.rope_theta is 500000.0"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings True, student.architecture.tied_embeddings is False"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, r"scales its rotary positions \(llama3\)"),
        ({"attention_bias": True}, "attention_bias true, student.architecture has no biases"),
        ({"vocab_size": 301}, "vocab_size 301, it has 300 here"),
    ],
)
def test_another_model_is_refused(plans: MakePlans, weights: Path, changes: dict[str, Any], message: str) -> None:
    _write(weights, changes)
    with pytest.raises(EnvironmentFault, match=rf"config.json .*{message}"):
        plans(_from(weights))


def test_a_torchtitan_teacher_takes_the_same(plans: MakePlans, weights: Path) -> None:
    """Named by its content; of the shape that the recipe says, or refused."""
    shape = "{hidden: 32, ffn: 64, layers: 2, heads: 4}"
    teacher = f"teacher.model={{kind: torchtitan, path: {weights}, architecture: {shape}}}"
    [before] = plans(teacher)
    capture = before.stage("capture")
    assert capture is not None
    assert isinstance(capture.job, CaptureJob)
    assert isinstance(capture.job.teacher, ModelSource)
    assert (capture.job.teacher.checkpoint, capture.job.teacher.step) == (str(weights), None)
    (weights / "model.safetensors").write_bytes(b"others")
    assert plans(teacher)[0].stage("capture") != capture
    _write(weights, {"num_attention_heads": 2})
    with pytest.raises(EnvironmentFault, match=r"teacher.model.path: .*heads 2, teacher.model.architecture.heads is 4"):
        plans(teacher)
    (weights / "model.safetensors").unlink()
    with pytest.raises(EnvironmentFault, match=r"teacher.model.path: there is no .*model.safetensors"):
        plans(teacher)


def test_transformers_5_writes_rope_theta_elsewhere(plans: MakePlans, weights: Path) -> None:
    _write(weights, {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})
    assert plans(_from(weights))


def test_a_missing_file_is_named(plans: MakePlans, weights: Path) -> None:
    (weights / "model.safetensors").rename(weights / "model-1.safetensors")
    with pytest.raises(EnvironmentFault, match=r"there is no .*model.safetensors"):
        plans(_from(weights))
    (weights / "model.safetensors.index.json").write_text(json.dumps({"weight_map": SHARDS}))
    with pytest.raises(EnvironmentFault, match=r"there is no .*model-2.safetensors"):
        plans(_from(weights))
    (weights / "model-2.safetensors").write_bytes(b"more")
    assert plans(_from(weights))


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_an_unreadable_configuration_is_named(plans: MakePlans, weights: Path, content: bytes) -> None:
    (weights / "config.json").write_bytes(content)
    with pytest.raises(EnvironmentFault, match=r"cannot read .*config.json"):
        plans(_from(weights))
