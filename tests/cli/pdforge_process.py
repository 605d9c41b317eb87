"""The command as a user runs it: a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pdforge(
    *arguments: str, cwd: Path = ROOT, stdin: str | bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `pdforge` and return what it printed; a traceback fails the test."""
    done = subprocess.run(
        [sys.executable, "-m", "pdforge", *arguments],
        cwd=cwd,
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment},
    )
    out, err = (stream.decode(environment.get("PYTHONIOENCODING", "utf-8")) for stream in (done.stdout, done.stderr))
    assert "Traceback" not in out + err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)
