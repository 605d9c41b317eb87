"""`pdforge tune` as a process, and its page."""

from __future__ import annotations

import json
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
    assert "--set training.activation_checkpointing=full" in " ".join(done.stdout.split())
    assert not (tmp_path / "runs").exists()

    done = pdforge(*asked, "--cluster", "none", "--json", cwd=tmp_path)
    assert done.returncode == 1
    [stage] = json.loads(done.stdout)
    assert stage["proposals"] == []
    assert stage["nearest"]["memory"] > 4e9
    assert stage["refused"]
