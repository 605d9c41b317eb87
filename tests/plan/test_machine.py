from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pdforge import environment
from pdforge.environment import require_training_packages, training_packages
from pdforge.errors import EnvironmentFault
from pdforge.plan import machine
from pdforge.plan.machine import can_train, inspect_machine
from pdforge.plan.runnable import require_runnable
from tests.plan.conftest import MakePlans

GOOD = {
    "torch": "2.14.1+cu128",
    "torchtitan": "0.3.0",
    "spmd_types": "0.2.3",
    "triton": "3.8.0",
    "tokenizers": "0.22.1",
}

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Pretend that exactly these packages are installed: the good ones, with changes (None: not there)."""

    def pretend(**changes: str | None) -> None:
        present = GOOD | changes

        def version(name: str) -> str:
            found = present.get(name)
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(environment, "version", version)

    return pretend


def test_good_versions_pass(install: Install) -> None:
    install()
    require_training_packages()
    assert all(package.ok for package in training_packages())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"torch": "2.13.0"}, "torch 2.13.0, 2.14.x is needed"),
        ({"torch": "2.140.0"}, "torch 2.140.0, 2.14.x is needed"),
        ({"torch": "2.1.4"}, "torch 2.1.4, 2.14.x is needed"),
        ({"torchtitan": "0.3.1"}, "torchtitan 0.3.1, 0.3.0 is needed"),
        ({"torchtitan": None}, "torchtitan is missing"),
        ({"torch": None, "tokenizers": None}, "torch is missing; tokenizers is missing"),
    ],
)
def test_others_are_refused_with_the_way_out(install: Install, changes: dict[str, str | None], message: str) -> None:
    install(**changes)
    with pytest.raises(EnvironmentFault) as caught:
        require_training_packages()
    assert message in caught.value.message
    assert "pdforge[train]" in caught.value.remedy


def test_a_missing_package_stops_training_and_a_missing_plotter_does_not(install: Install, tmp_path: Path) -> None:
    install(torchtitan=None)
    checks = {check.name: check for check in inspect_machine(tmp_path)}
    assert (checks["torchtitan"].state, checks["matplotlib"].state) == ("missing", "absent")
    assert checks["torchtitan"].remedy == environment.INSTALL
    assert not can_train(list(checks.values()))
    install()
    assert can_train(inspect_machine(tmp_path))


def test_root_that_cannot_be_a_directory(install: Install, tmp_path: Path) -> None:
    install()
    (tmp_path / "file").write_text("")
    checks = {check.name: check for check in inspect_machine(tmp_path / "file" / "runs")}
    assert checks["disk"].state == "missing"


def test_scheduler_is_found_on_the_path(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    for name in ("sbatch", "squeue"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = {check.name: check for check in inspect_machine(tmp_path)}
    assert (checks["scheduler"].state, str(tmp_path) in checks["scheduler"].value) == ("ok", True)


def test_a_gpu_needs_a_compiler(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(machine, "visible_gpus", lambda: 0)
    assert can_train(inspect_machine(tmp_path))
    monkeypatch.setattr(machine, "visible_gpus", lambda: 2)
    checks = {check.name: check for check in inspect_machine(tmp_path)}
    assert checks["compiler"].state == "missing"
    assert "gcc" in checks["compiler"].remedy
    assert checks["devices"].value.startswith("2 NVIDIA GPUs")


def test_bytecode_that_nobody_may_write(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    for forbidden, state in ((False, "ok"), (True, "absent")):
        monkeypatch.setattr(sys, "dont_write_bytecode", forbidden)
        checks = {check.name: check for check in inspect_machine(tmp_path)}
        assert checks["bytecode"].state == state
    assert "PYTHONDONTWRITEBYTECODE" in checks["bytecode"].value


def test_a_hugging_face_teacher_needs_its_packages(plans: MakePlans, install: Install) -> None:
    install()
    [plan] = plans(
        "teacher.model={kind: huggingface, path: some/model, revision: abc}",
        "data.tokenizer={kind: pretrained, path: some/model, revision: abc, vocabulary: 300}",
    )
    assert [stage.kind for stage in plan.stages] == ["tokenize", "capture", "train"]
    assert plan.figures.teacher is not None
    assert plan.figures.teacher.parameters is None
    with pytest.raises(
        EnvironmentFault, match="Hugging Face models: transformers, safetensors, huggingface_hub missing"
    ):
        require_runnable([plan])
    require_runnable(plans())
