"""`python -m pdforge.stages.deep STAGE_DIRECTORY RANK`: what a compiled training takes on that rank.

The last line of standard output is JSON: either what was measured, or what went wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pdforge.layout import StageDirectory
from pdforge.plan.jobs import TrainJob
from pdforge.stages.entry import read_job
from pdforge.stages.train import load_config
from pdforge.titan.deep import measure


def look(path: Path, rank: int) -> dict[str, Any]:
    """`measure` of the stage in that directory as that rank; or `error`."""
    directory = StageDirectory(path)
    job = read_job(directory)
    assert isinstance(job, TrainJob)
    try:
        config = load_config(directory.train_module)
        return measure(config, ranks=job.processes, rank=rank, cuda=job.device == "cuda")._asdict()
    # a configuration that does not work raises whatever it likes, anywhere in torchtitan or torch: that is the finding
    except Exception as error:  # noqa: BLE001
        # its first line: torch appends pages
        return {"error": f"{type(error).__name__}: {error}".strip().partition("\n")[0]}


if __name__ == "__main__":
    print(json.dumps(look(Path(sys.argv[1]).absolute(), int(sys.argv[2]))))
