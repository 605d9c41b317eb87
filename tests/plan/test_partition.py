"""The built-in profile `slurm`: what sinfo says, in the forms that SLURM's manual gives and a cluster has printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pdforge.errors import EnvironmentFault
from pdforge.plan import partition
from pdforge.plan.clusters import all_profiles
from pdforge.plan.partition import Partition, as_scheduled, default_partition, gpus_in, seconds_in
from pdforge.plan.profile import slurm_profile

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.mark.parametrize(
    ("said", "offered"),
    [
        ("main*|(null)|4|2|infinite\nlow|gpu:8|4|2|infinite\n", Partition(0, 4, None)),
        ("main*|gpu:h100:2|4|2|infinite\n", Partition(2, 4, None)),
        ("cpu|(null)|64|90|1:00:00\ngpu*|gpu:h100:8(S:0-1)|112|16|3-00:00:00\n", Partition(8, 112, 259200)),
        ("all*|(null)|64|90|30:00\nall*|gpu:a100:4|48|6|30:00\nall*|gpu:v100:2|32+|3|30:00\n", Partition(4, 48, 1800)),
    ],
)
def test_the_default_partition(said: str, offered: Partition) -> None:
    assert default_partition(said) == offered


def test_no_default_partition() -> None:
    with pytest.raises(EnvironmentFault, match="no default partition"):
        default_partition("low|gpu:8|4|2|infinite\n")


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ("(null)", 0),
        ("gpu:8", 8),
        ("gpu:h100:8(S:0-1)", 8),
        ("gpu:a100:3(S:0,1),gpu:a100_1g.5gb:7(S:0),nvme:2", 10),
        ("shard:16,gpu:2", 2),
        ("nvme:gpu:4", 0),
    ],
)
def test_gpus_of_a_node(resources: str, gpus: int) -> None:
    assert gpus_in(resources) == gpus


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("infinite", None), ("30:00", 1800), ("12:00:00", 43200), ("1-12:00:00", 129600), ("n/a", None)],
)
def test_time_limits(limit: str, seconds: int | None) -> None:
    assert seconds_in(limit) == seconds


def test_jobs_of_a_partition_for_short_ones_have_time_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "_sinfo", lambda: "debug*|gpu:2|4|2|2:00\n")
    short = as_scheduled(slurm_profile())
    assert (short.walltime, short.signal_delay, short.gpus_asked_for) == (120, 60, 2)


def test_without_a_scheduler_there_is_an_answer_and_listing_asks_nobody(tmp_path: Path) -> None:
    assert all_profiles()["slurm"][0].device == "cpu"
    environment = {**os.environ, "SLURM_CONF": str(tmp_path / "none"), "XDG_CONFIG_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "pdforge", "submit", str(TINY), "--cluster", "slurm", "--root", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "asks the scheduler for its default partition: sinfo" in done.stderr
    assert "clusters.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
