"""What a machine cannot carry out is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge import environment
from pdforge.errors import EnvironmentFault, UsageError
from pdforge.layout import StageDirectory
from pdforge.plan.runnable import require_runnable, require_tasks
from tests.plan.conftest import CPU, MakePlans

EVALUATE = ("export={}", "evaluate={tasks: [{task: pdforge_python_names}]}")


def test_tasks_that_are_there_are_not_refused(plans: MakePlans, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    require_tasks(plans(*EVALUATE))


def test_tasks_whose_data_cannot_be_had_are_refused(
    plans: MakePlans, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    (tmp_path / "far.yaml").write_text("task: far\ndataset_path: somebody/data\noutput_type: multiple_choice\n")
    more = ("evaluate.tasks=[{task: far}, {task: pdforge_python_names, metric: f1}]", f"evaluate.include={tmp_path}")
    [plan] = plans(*EVALUATE, *more)
    with pytest.raises(UsageError, match="does not hold somebody/data") as caught:
        require_tasks([plan])
    assert "'pdforge_python_names' does not measure 'f1'" in caught.value.message
    assert "it measures acc" in caught.value.remedy
    assert "held-out loss needs none" in caught.value.remedy
    stage = plan.stage("evaluate")
    assert stage is not None
    done = StageDirectory(tmp_path / "runs" / stage.directory).done
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    require_tasks([plan])  # what is measured needs nothing any more


def test_without_tasks_the_harness_is_not_needed(plans: MakePlans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdforge.environment.installed", lambda _: None)
    require_tasks(plans("evaluate={}"))
    with pytest.raises(EnvironmentFault, match="lm_eval, accelerate, transformers missing"):
        require_tasks(plans(*EVALUATE))


def test_a_tokenizer_from_a_gguf_file_needs_what_reads_it(
    plans: MakePlans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything starts: the plan may have been made where the package is."""
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    vocabulary = '{"model": {"vocab": {"<|endoftext|>": 0, "a": 1}}}'
    monkeypatch.setattr("pdforge.gguf.tokenizer_of", lambda *_: vocabulary.encode())
    made = plans(f"data.tokenizer={{kind: pretrained, path: {file}, vocabulary: 300}}", variants=("lm",))
    there = environment.installed
    monkeypatch.setattr(environment, "installed", lambda name: there(name) or "1.0")
    require_runnable(made)
    monkeypatch.setattr(environment, "installed", lambda name: None if name == "gguf" else there(name) or "1.0")
    with pytest.raises(EnvironmentFault, match="gguf missing"):
        require_runnable(made)
    require_runnable(plans(variants=("lm",)))


def test_a_sharded_teacher_is_not_captured_by_tasks_that_are_alone(plans: MakePlans, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(name)
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"<|endoftext|>": 0, "a": 1}}}')
    tokenizer = f"data.tokenizer={{kind: pretrained, path: {folder}, vocabulary: 300}}"
    array = CPU.with_processes(2).model_copy(update={"executor": "slurm", "capture_tasks": 4})

    def made(shard: int, *more: str) -> None:
        teacher = f"teacher.model={{kind: huggingface, path: {folder}, shard: {shard}}}"
        plans(teacher, tokenizer, "training.tokens=4k", *more, profile=array)

    made(1)
    made(2, "teacher.logits={mode: live}")  # captures nothing
    with pytest.raises(UsageError, match=r"teacher\.model\.shard: 2 processes .* an array of 4 tasks") as caught:
        made(2)
    assert "capture_tasks: 1" in caught.value.remedy
