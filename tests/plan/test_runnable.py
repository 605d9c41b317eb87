"""What this version cannot run is refused by name before anything starts; what it can run is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge import environment
from pdforge.errors import EnvironmentFault, UsageError
from pdforge.plan.runnable import require_runnable, unsupported
from tests.plan.conftest import CPU, FINETUNE, MakePlans

CANNOT = [
    ("evaluate={tasks: [{task: piqa}]}", "evaluate the student"),
]


@pytest.mark.parametrize(("override", "words"), CANNOT, ids=[words for _, words in CANNOT])
def test_what_cannot_run_is_refused_by_name(plans: MakePlans, override: str, words: str) -> None:
    made = plans(override, "training.tokens=4k")
    assert unsupported(made[0]).startswith(f"this version cannot {words}")
    with pytest.raises(UsageError, match="this version cannot") as caught:
        require_runnable(made)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "override",
    [
        "objective.loss.kind=nll",
        "objective.loss={kind: mse}",
        "objective.tail=ghost",
        "objective.temperature=2",
        "objective.temperature={kind: adakd_h}",
        "objective.temperature={kind: normkd}",
        "objective.token_filter={skip_lowest_entropy: 15%}",
        "teacher.truncation.top_k=5",
        "teacher.logits={mode: live}",
        "export={}",
        FINETUNE,
    ],
)
def test_what_can_run_is_not_refused(plans: MakePlans, override: str) -> None:
    assert [unsupported(plan) for plan in plans(override, variants=("lm", "pd"))] == ["", ""]


def test_without_distillation_the_objective_is_not_read(plans: MakePlans) -> None:
    [plan] = plans("objective.loss={kind: mse}", "teacher.truncation={kind: sample}", variants=("lm",))
    assert unsupported(plan) == ""


def test_a_tokenizer_from_a_gguf_file_needs_what_reads_it(
    plans: MakePlans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything starts: the plan may have been made where the package is."""
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    vocabulary = '{"model": {"vocab": {"<|endoftext|>": 0, "a": 1}}}'
    monkeypatch.setattr("pdforge.plan.content.tokenizer_of", lambda *_: vocabulary.encode())
    made = plans(f"data.tokenizer={{kind: pretrained, path: {file}, vocabulary: 300}}", variants=("lm",))
    require_runnable(made)
    there = environment.installed
    monkeypatch.setattr(environment, "installed", lambda name: None if name == "gguf" else there(name))
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
