"""`tokenize` and `tokenize-conversations`: the corpus into a token store."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from pdforge.layout import StageDirectory, write_json
from pdforge.plan.jobs import TokenizeJob
from pdforge.stages import stop
from pdforge.stages.entry import Results, Stopped
from pdforge.store.tokenize import BuildStopped, Task, build_token_store

_PHASES = ("tokenizer", "encode", "pack train", "pack validation")
"""In order. Each has a unit of its own, so that only the phase says which of two starts came further."""


def run(job: TokenizeJob, directory: StageDirectory, rank: int, ranks: int) -> Results | Stopped:
    """Train or load the tokenizer, encode, pack; finished parts of an earlier attempt are kept."""
    if threads := os.environ.get("OMP_NUM_THREADS"):  # this task's part of the machine; the tokenizer takes it all
        os.environ.setdefault("RAYON_NUM_THREADS", threads)
    try:
        manifest = build_token_store(
            Path(job.output),
            corpus=job.corpus,
            tokenizer=job.tokenizer,
            sequence_length=job.sequence_length,
            train_sequences=job.train_sequences,
            validation_sequences=job.validation_sequences,
            seed=job.seed,
            identity=job.identity,
            chat=job.chat,
            progress=_Progress(directory, job.kind),
            task=Task(rank, ranks, stop.requested),
        )
    except BuildStopped:
        return "stopped"
    return {"manifest": manifest.model_dump(mode="json")}


class _Progress:
    """Writes how far the phase is; its rate is that of this attempt."""

    def __init__(self, directory: StageDirectory, kind: str) -> None:
        self._path, self._kind = directory.progress, kind
        self._phase, self._started, self._first = "", 0.0, 0

    def __call__(self, row: dict[str, Any]) -> None:
        now, done, total = time.monotonic(), row["done"], row["total"]
        if row["phase"] != self._phase:
            self._phase, self._started, self._first = row["phase"], now, done
        rate = (done - self._first) / (now - self._started) if now > self._started else 0.0
        write_json(
            self._path,
            {
                "stage": self._kind,
                "phase": _PHASES.index(row["phase"]),
                "step": done,
                "of": total,
                "unit": row["unit"],
                "tokens_per_second": (rate or None) if row["unit"] == "tokens" else None,
                "eta_seconds": (total - done) / rate if rate else None,
                "message": row["phase"],
                "time": time.time(),
            },
        )
