"""What the batch step of a SLURM job does when its ranks have ended; scontrol is a script that notes the requests."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pdforge.launch.process import ProcessId
from pdforge.launch.records import HANG, AttemptRecord, RankError, RankRecord, write_attempt, write_rank
from pdforge.layout import StageDirectory

SCONTROL = """\
#!/bin/sh
[ "$1" = requeue ] || exit 1
echo "$@" >> "$0.asked"
kill -TERM $PPID  # as the requeue does
"""
ERRORS = {
    "hang": (RankError(type=HANG, message="no sign of life", traceback="in forward", suspects=[0]), True),
    "hang before the first sign": (RankError(type=HANG, message="no sign of life", suspects=[0]), True),
    "exception": (RankError(type="RuntimeError", message="broken", traceback="in forward"), True),
    "killed": (RankError(type="", message="killed by signal 9"), True),
    "lost GPU": (RankError(type="NodeFault", message="torch sees none of the CUDA devices"), True),
    "stale handle": (RankError(type="StoreError", message="/r/a: cannot be written: Stale file handle"), True),
    "full disk": (RankError(type="StoreError", message="/r/a: cannot be written: No space left on device"), False),
    "bad input": (RankError(type="RecipeError", message="no such corpus"), False),
}


@pytest.mark.parametrize("name", ERRORS)
def test_all_but_bad_input_starts_again(name: str, tmp_path: Path) -> None:
    error, again = ERRORS[name]
    stage = StageDirectory(tmp_path / "logits" / "1234")
    attempt = stage.attempt(1)
    attempt.path.mkdir(parents=True)
    now = time.time()
    record = AttemptRecord(
        executor="slurm", processes=1, master_address="n1", master_port=1, high_water=0, started=now, job="42"
    )
    write_attempt(attempt, record)
    this = ProcessId.of(os.getpid())
    write_rank(
        attempt, RankRecord(rank=0, process=this, state="failed", exit_code=1, error=error, started=now, ended=now)
    )
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(SCONTROL)
    scontrol.chmod(0o755)
    environment = {**os.environ, "SLURM_JOB_ID": "42", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment = {key: value for key, value in environment.items() if not key.startswith("SLURM_ARRAY")}
    command = [sys.executable, "-m", "pdforge.launch.after", str(stage.path), "137"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    asked = Path(f"{scontrol}.asked")
    assert (asked.read_text() if asked.exists() else "") == ("requeue 42\n" if again else ""), done.stdout + done.stderr
    assert done.returncode == (137 if again else 1)
