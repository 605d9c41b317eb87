"""Job directories: readable, reproducible, and nothing of a recipe becomes code."""

from __future__ import annotations

import ast
import shlex
import subprocess
from pathlib import Path

import pytest

from pdforge.compile import write_stage
from pdforge.compile.templates import Name, render
from pdforge.layout import StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.model import Plan
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes
from pdforge.stages.entry import read_job

NASTY = [
    "plain",
    'it\'s "quoted"',
    "{{ 7*7 }}{% raw %}",
    "$(touch pwned) `touch pwned` ${HOME}",
    "a; rm -rf / && b | c > d",
    "new\nline\r\ttab\x7f",
    "__import__('os').system('x')",
    '"""',
    "\\",
    "—τ→ ünïcode 🙂\u2028",
]


def _plans(root: Path, *overrides: str) -> list[Plan]:
    return make_plans(load_recipes("quickstart", overrides=overrides), local_profile(2), root)


def _literals(path: Path) -> list[object]:
    return [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]


@pytest.mark.parametrize("text", NASTY)
def test_strings_stay_strings_in_python_and_in_shell(tmp_path, text) -> None:
    root = tmp_path / text.replace("/", "_")
    stage = _plans(root)[-1].stages[-1]
    directory = write_stage(stage, root)
    assert str(directory.path) in _literals(directory.train_module)
    script = directory.launch_script.read_bytes().decode()
    words = shlex.split(script, comments=True)
    assert f"stage={directory.path}" in words
    # bash agrees with shlex about where the word ends
    script = script.split("exec ")[0] + 'printf %s "$stage"'
    shown = subprocess.run(["bash", "-c", script], capture_output=True, check=True, cwd=tmp_path).stdout.decode()
    assert shown == str(directory.path)
    assert not (tmp_path / "pwned").exists()


def test_only_identifiers_are_rendered_as_code() -> None:
    with pytest.raises(ValueError, match="not identifiers"):
        Name("os; import sys")


def test_an_undefined_value_is_an_error() -> None:
    with pytest.raises(Exception, match="undefined"):
        render("launch.sh.j2", "shell", {})


def test_compiling_twice_writes_the_same_bytes(tmp_path) -> None:
    for plan in _plans(tmp_path):
        for stage in plan.stages:
            first = {path: path.read_bytes() for path in write_stage(stage, tmp_path).job.iterdir()}
            second = {path: path.read_bytes() for path in write_stage(stage, tmp_path).job.iterdir()}
            assert first == second


def test_job_json_is_the_stages_job(tmp_path) -> None:
    for stage in _plans(tmp_path)[-1].stages:
        assert read_job(write_stage(stage, tmp_path)) == stage.job


def test_language_modelling_alone_is_torchtitans_own_loss(tmp_path) -> None:
    lm, pd = (write_stage(plan.stages[-1], tmp_path).train_module.read_text() for plan in _plans(tmp_path))
    assert "CrossEntropyLoss" in lm
    assert "Distillation" not in lm.replace("DistillTrainer", "")
    assert "DistillationLoss" in pd
    assert "CrossEntropyLoss" not in pd


def test_the_module_says_what_the_recipe_says(tmp_path) -> None:
    plan = _plans(
        tmp_path,
        "training.activation_checkpointing=full",
        "training.parallelism.tensor=2",
        "objective.temperature=2.5",
        "objective.loss.kind=nll",
    )[-1]
    directory: StageDirectory = write_stage(plan.stages[-1], tmp_path)
    text = directory.train_module.read_text()
    for part in ("FullAC.Config()", "tensor_parallel_degree=2", "'temperature': 2.5", "{'kind': 'nll'}"):
        assert part in text
