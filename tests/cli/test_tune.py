"""`pdforge tune` as a process, and its page."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tests.cli.pdforge_process import pdforge

CLUSTERS = """\
large: {device: cuda, gpu: H100, processes_per_node: 8}
small: {device: cuda, gpu: L40S, gpu_memory: 24GB, processes_per_node: 8}
none: {device: cuda, gpu: L40S, gpu_memory: 4GB, processes_per_node: 8}
"""


def test_tune(tmp_path: Path) -> None:
    (tmp_path / "clusters.yaml").write_text(CLUSTERS, encoding="utf-8")
    asked = ("tune", "pd_star", "--variant", "6.8b", "--root", str(tmp_path / "runs"))
    done = pdforge(*asked, "--cluster", "small", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "does not fit" in done.stdout
    assert "--set training.activation_checkpointing=full" in done.stdout
    assert not (tmp_path / "runs").exists()

    done = pdforge(*asked, "--cluster", "none", "--json", cwd=tmp_path)
    assert done.returncode == 1
    [stage] = json.loads(done.stdout)
    assert stage["proposals"] == []
    assert stage["nearest"]["memory"] > 4e9
    assert stage["refused"]


def test_what_it_proposes_is_applied_by_the_command_that_it_prints(tmp_path: Path) -> None:
    """Of a recipe whose batches 8 processes do not divide, with a blank in its name, and values of its own."""
    (tmp_path / "clusters.yaml").write_text(CLUSTERS, encoding="utf-8")
    (tmp_path / "my study.yaml").write_text("extends: quickstart\nrecipe: mine\n", encoding="utf-8")
    asked = ("my study.yaml", "--variant", "pd", "--cluster", "large", "--root", "there")
    hot = ("--set", "objective.temperature=1.5")
    done = pdforge("tune", *asked, *hot, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "searched from micro batches of 1: teacher.model.training.batch: 16 sequences" in done.stdout
    command = done.stdout.partition("apply 1 to train pd:\n")[2].replace("\\\n", " ")
    words = shlex.split(command)
    assert words[:2] == ["pdforge", "plan"]
    applied = pdforge(*words[1:], "--json", cwd=tmp_path)
    assert applied.returncode == 0, applied.stderr
    [plan] = json.loads(applied.stdout)["plans"]
    assert plan["recipe"]["objective"]["temperature"] == 1.5
    same = pdforge("plan", "my study.yaml", "-v", "pd", *hot, "--json", cwd=tmp_path)
    assert plan["hash"] == json.loads(same.stdout)["plans"][0]["hash"]
