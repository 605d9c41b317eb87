"""What finished stages measured, kept below the storage root for each cluster profile: the next plan is made from it.

One small file a stage, `ROOT/measured/<profile>/<kind>-<identity>.json`: written once, by whoever sees the stage end,
so that nobody waits for a lock, and kept when runs and stores are deleted.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pdforge.identity import identity
from pdforge.layout import StageDirectory, measured_directory, read_json, write_json
from pdforge.plan.estimate import model_flops_per_token
from pdforge.plan.jobs import CaptureJob, EvaluateJob, ExportJob, HuggingFaceSource, Job, TokenizeJob, TrainJob
from pdforge.plan.profile import Profile
from pdforge.plan.step_time import products_rate

if TYPE_CHECKING:
    from pdforge.plan.measurement import Measured


def work_of(job: Job) -> str:
    """Names the work of a job: see `Measured.work`."""
    part: dict[str, Any]
    match job:
        case TrainJob():
            training = job.training
            part = {
                "training": training.model_dump(
                    mode="json",
                    by_alias=True,
                    include={"batch", "precision", "parallelism", "activation_checkpointing", "compile", "loss_chunks"},
                ),
                "objective": job.objective.model_dump(mode="json", include={"loss", "tail"}) if job.objective else None,
                "truncation": job.truncation.model_dump(mode="json") if job.truncation and job.logits else None,
                **({"also": [each.truncation.model_dump(mode="json") for each in job.also]} if job.also else {}),
                "beside": _shape(job.teacher) if job.teacher else None,
                "model": [job.architecture.model_dump(mode="json"), job.vocabulary, job.sequence_length],
            }
        case CaptureJob():
            part = {
                "model": _shape(job.teacher),
                "truncation": job.truncation.model_dump(mode="json"),
                "rest": [job.codec, list(job.columns), job.micro, job.precision],
                **({} if job.runs_teacher else {"online": True}),
            }
        case TokenizeJob():
            part = {
                "corpus": [corpus.model_dump(mode="json") for corpus in job.corpus],
                "tokenizer": job.tokenizer.model_dump(mode="json"),
            }
        case ExportJob():
            part = {"model": _shape(job.student), "dtype": job.dtype}
        case EvaluateJob():
            tasks = [task.model_dump(mode="json") for task in job.tasks]
            part = {"model": _shape(job.student), "tasks": tasks, "limit": job.limit, "batch": job.batch}
    return identity({"kind": job.kind, "device": getattr(job, "device", "cpu"), **part})


def store_of(job: CaptureJob) -> str:
    """Names what sets the size of a capture's store: vocabulary, truncation and codec."""
    return identity(
        {"vocabulary": job.teacher.vocabulary, "truncation": job.truncation.model_dump(mode="json"), "codec": job.codec}
    )


def read_measured(root: Path) -> list[Measured]:
    """All that was measured below a root, oldest first; files that cannot be read tell nothing."""
    found: list[Measured] = []
    for file in measured_directory(root, "*").parent.glob("*/*.json"):
        from pdforge.plan.measurement import Measured  # noqa: PLC0415 - its class is made where there is one

        try:
            found.append(Measured.model_validate_json(file.read_bytes()))
        except (OSError, ValidationError):
            continue
    return sorted(found, key=lambda each: each.finished)


def keep_measured(stage: StageDirectory, root: Path, profile: Profile) -> Measured | None:
    """Keep what a finished stage measured on a profile; None where it is not done, or its files cannot be read.

    Where it cannot be written it is lost, which only makes the next plan less sure.
    """
    found = measure(stage, profile)
    if found is not None:
        file = measured_directory(root, profile.name) / f"{found.kind}-{found.identity}.json"
        with contextlib.suppress(OSError):
            write_json(file, found.model_dump(mode="json", exclude_none=True))
    return found


def measure(stage: StageDirectory, profile: Profile) -> Measured | None:
    """What a finished stage measured; None as for `keep_measured`."""
    from pydantic import TypeAdapter  # noqa: PLC0415 - not for a plan

    from pdforge.plan.measurement import Measured  # noqa: PLC0415 - as above

    try:
        job: Job = TypeAdapter(Job).validate_json(stage.job_json.read_bytes())
        done: dict[str, Any] = json.loads(stage.done.read_bytes())
        results, finished = dict(done["results"]), float(done["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    tokens, flops = _tokens(job), model_flops_per_token(job)
    processes = profile.at_once(job.kind, getattr(job, "processes", 1))
    rate, seconds = _rate(stage), _seconds(stage, finished)
    # the results tell of the last start only
    if rate is None and tokens and seconds and results.get("seconds"):
        rate = tokens / results["seconds"]
    reached = rate * flops / processes if rate and flops else None
    overhead = seconds - tokens / rate if seconds and tokens and rate else None
    stored = _stored(job, results)
    return Measured(
        profile=profile.name,
        gpu=profile.gpu,
        device=getattr(job, "device", "cpu"),
        kind=job.kind,
        title=job.title,
        identity=job.identity,
        work=work_of(job),
        processes=processes,
        tokens=tokens,
        tokens_per_second=rate,
        flops_per_second=reached,
        products_per_second=products_rate(job, profile, reached) if reached and isinstance(job, TrainJob) else reached,
        seconds=seconds,
        overhead=max(0.0, overhead) if overhead is not None else None,
        peak_memory=results.get("peak_memory"),
        finished=finished,
        **stored,
    )


def bytes_below(folder: Path) -> int:
    """Of all files in a folder and below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _stored(job: Job, results: dict[str, Any]) -> dict[str, Any]:
    match job:
        case CaptureJob():
            kept, positions, size = (results.get(name) for name in ("kept_count", "positions", "bytes"))
            if not (kept and positions and size):
                return {}
            columns = 4 * len(job.columns) * positions
            return {
                "entries": kept,
                "bytes_an_entry": (size - columns) / (kept * positions),
                "bytes": size,
                "store": store_of(job),
            }
        case TrainJob():
            newest = StageDirectory(Path(job.output).parent).checkpoints / f"step-{job.steps}"
            return {"bytes": bytes_below(newest)} if newest.is_dir() else {}
        case TokenizeJob():  # without the tokenizer beside them
            stored = sum(shard.stat().st_size for shard in Path(job.output).glob("*.bin"))
            return {"bytes": stored} if stored else {}
        case ExportJob():
            output = Path(job.output)
            return {"bytes": bytes_below(output)} if output.is_dir() else {}
        case EvaluateJob():
            return {}


def _tokens(job: Job) -> int | None:
    match job:
        case TrainJob():
            return job.own_steps * job.training.batch.global_ * job.sequence_length
        case CaptureJob():
            return job.sequences * job.teacher.sequence_length
        case TokenizeJob():
            return (job.train_sequences + job.validation_sequences) * job.sequence_length
    return None


def _shape(source: Any) -> list[Any]:
    if isinstance(source, HuggingFaceSource) and source.architecture is None:
        return [source.path, source.vocabulary, source.sequence_length]
    return [source.architecture.model_dump(mode="json"), source.vocabulary, source.sequence_length]


def _rate(stage: StageDirectory) -> float | None:
    """Tokens a second, as the stage told them last."""
    try:
        told = read_json(stage.progress)
        return float(told["tokens_per_second"]) if told and told.get("tokens_per_second") else None
    except (OSError, ValueError, TypeError):
        return None


def _seconds(stage: StageDirectory, finished: float) -> float | None:
    """From the start of the only attempt; None where there were several, or none is recorded."""
    attempts = stage.all_attempts()
    try:
        record = read_json(attempts[0].record) if len(attempts) == 1 else None
        started = float(record["started"]) if record else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return finished - started if started else None
