"""A short row of random faults; `make chaos` is the long one, with real stages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.harness import TESTS, missing
from tests.slurm.inject import FAULTS

SCRIPT = TESTS.parent / "scripts" / "chaos.py"


def test_five_random_faults(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    command = [sys.executable, SCRIPT, "--faults", "5", "--seed", "11", "--real", "0", "--folder", tmp_path, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert (page["faults"], page["lost runs"]) == (5, 0)
    assert [row["fault"] for row in page["by fault"]] == list(FAULTS)
    assert sum(row["recovered"] for row in page["by fault"]) == 5
    assert page["compared"]["light trainings"] == 2 * page["runs"]
    assert not list(tmp_path.iterdir()), "nothing is kept of runs that ended well"
