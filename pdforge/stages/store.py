"""What every capture does with its logit store: describe it, publish it, and say how far it is."""

from __future__ import annotations

import time
from typing import Any

from pdforge.layout import StageDirectory, write_json
from pdforge.plan.jobs import CaptureJob, kept
from pdforge.recipe.models import Sample
from pdforge.stages import stop
from pdforge.stages.entry import Results
from pdforge.store.spec import LogitSpec
from pdforge.store.tokens import TokenStore
from pdforge.store.writer import LogitWriter

_POLL_S = 0.5
"""Between two looks of rank 0 at what the others have published."""


def publish(writer: LogitWriter, measured: dict[str, Any], recorded: dict[str, Any] | None = None) -> Results:
    """Make the store whole; the stage's results are what its manifest says, and what was `measured`.

    `recorded` goes into the manifest besides.
    """
    manifest = writer.finish({**measured, **(recorded or {})})
    fidelity = manifest.fidelity
    return {
        "positions": fidelity.positions,
        "kept_count": fidelity.entries / fidelity.positions,
        "kept_mass": fidelity.mass_mean,
        "kl_of_decoded": fidelity.kl_mean,
        "bytes": manifest.bytes,
        **measured,
    }


def all_written(writer: LogitWriter, progress: CaptureProgress) -> bool:
    """Wait for the shards that other ranks still write; False: asked to stop before the last one."""
    reported = None
    while True:
        missing = len(writer.missing_shards())
        if missing != reported:  # a file that is written again passes for progress, which hides a hang
            progress.report(missing)
            reported = missing
        if not missing:
            return True
        if stop.requested():
            return False
        time.sleep(_POLL_S)


def spec_of(job: CaptureJob, tokens: TokenStore) -> LogitSpec:
    """What the store of a capture holds."""
    top_p, top_k = kept(job.truncation)
    return LogitSpec(
        identity=job.identity,
        teacher=job.teacher_identity,
        tokens=job.tokens_identity,
        tokens_content=tokens.manifest.content,
        tokenizer=tokens.manifest.tokenizer,
        sequence_length=job.teacher.sequence_length,
        vocabulary=job.teacher.vocabulary,
        top_p=top_p,
        top_k=top_k,
        sequences=job.sequences,
        first=job.first_sample or None,
        shard_sequences=job.shard_sequences,
        teacher_dtype=job.precision,
        codec=job.codec,
        columns=job.columns,
        seed=job.truncation.seed if isinstance(job.truncation, Sample) else None,
    )


class CaptureProgress:
    """Writes how much of the store is there."""

    def __init__(self, directory: StageDirectory, spec: LogitSpec) -> None:
        self._path, self._spec = directory.progress, spec
        self._started = time.monotonic()
        self._first: int | None = None

    def report(self, missing_shards: int) -> None:
        """With so many shards still missing."""
        done = max(0, self._spec.sequences - missing_shards * self._spec.shard_sequences)
        self._first = done if self._first is None else self._first
        rate = (done - self._first) / (time.monotonic() - self._started)
        row: dict[str, Any] = {
            "stage": "capture",
            "step": done,
            "of": self._spec.sequences,
            "unit": "sequences",
            "loss": None,
            "tokens_per_second": rate * self._spec.sequence_length or None,
            "eta_seconds": (self._spec.sequences - done) / rate if rate else None,
            "message": "",
            "time": time.time(),
        }
        write_json(self._path, row)
