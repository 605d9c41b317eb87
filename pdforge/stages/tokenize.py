"""`tokenize`: the corpus into a token store."""

from __future__ import annotations

from pathlib import Path

from pdforge.layout import StageDirectory, write_json
from pdforge.plan.jobs import TokenizeJob
from pdforge.stages.entry import Results, Stopped
from pdforge.store.tokenize import build_token_store


def run(job: TokenizeJob, directory: StageDirectory, rank: int, ranks: int) -> Results | Stopped:
    """Train or load the tokenizer, encode, pack; finished parts of an earlier attempt are kept."""
    del rank, ranks
    manifest = build_token_store(
        Path(job.output),
        corpus=job.corpus,
        tokenizer=job.tokenizer,
        sequence_length=job.sequence_length,
        train_sequences=job.train_sequences,
        validation_sequences=job.validation_sequences,
        seed=job.seed,
        identity=job.identity,
        progress=lambda row: write_json(directory.progress, row),
    )
    return {"manifest": manifest.model_dump(mode="json")}
