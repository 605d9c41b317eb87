"""The capture stage on the tiny run's own teacher: sampled, with columns, killed, split over tasks, and through S3."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pdforge.launch.progress import read_progress
from pdforge.layout import StageDirectory, write_atomically
from pdforge.plan.jobs import CaptureJob, ModelSource
from pdforge.recipe.models import Sample
from pdforge.stages import capture
from pdforge.stages.entry import read_job
from pdforge.store.logits import LogitStore
from pdforge.store.tokens import TokenStore
from pdforge.titan.inference import load
from tests.stages.conftest import ENVIRONMENT, TinyRun
from tests.store import made, s3

pytestmark = pytest.mark.slow

COLUMNS = ("entropy", "label_logprob", "logsumexp", "standard_deviation")


def prepared(tiny: TinyRun, path: Path, **changes: Any) -> StageDirectory:
    """A stage directory with the tiny run's capture job, changed."""
    job = read_job(tiny.stage("pd", "capture"))
    assert isinstance(job, CaptureJob)
    stage = StageDirectory(path)
    new = CaptureJob.model_validate({**job.model_dump(by_alias=True), "output": str(stage.output), **changes})
    write_atomically(stage.job_json, new.model_dump_json(by_alias=True))
    return stage


def started(stage: StageDirectory, rank: int = 0, ranks: int = 1) -> subprocess.Popen[str]:
    """The stage as a process, as `launch.sh` or a job array's task starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pdforge.stages", str(stage.path)],
        env={**ENVIRONMENT, "RANK": str(rank), "WORLD_SIZE": str(ranks)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def captured(stage: StageDirectory, ranks: int = 1) -> LogitStore:
    """The stage to its end, in this process, one task after another as a job array may run them; its store."""
    job = read_job(stage)
    assert isinstance(job, CaptureJob)
    for rank in range(ranks - 1, -1, -1):
        assert capture.run(job, stage, rank, ranks) != "stopped"
    return LogitStore.open(job.output)


def teacher_logits(stage: StageDirectory, samples: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense float64 logits [B, L, V] of the job's teacher, and the labels [B, L]."""
    job = read_job(stage)
    assert isinstance(job, CaptureJob)
    assert isinstance(job.teacher, ModelSource)
    model = load(job.teacher, torch.device("cpu"), torch.float32)
    tokens, positions = (
        torch.from_numpy(part).long() for part in TokenStore.open(job.tokens).split("train").get_batch(samples)
    )
    return model.logits(model.hidden(tokens[:, :-1], positions)).double(), tokens[:, 1:]


def test_sampled_from_the_full_softmax_with_columns(tiny: TinyRun, tmp_path: Path) -> None:
    truncation = Sample(kind="sample", draws=200, seed=3).model_dump()
    sampled = {"truncation": truncation, "codec": "sampled", "sequences": 40, "columns": COLUMNS}
    stage = prepared(tiny, tmp_path / "sampled", **sampled)
    store = captured(stage)
    ids, logprobs, mass, *columns = store.get_batch(range(40), columns=COLUMNS)
    assert (mass == 1).all()
    np.testing.assert_allclose(np.exp(logprobs).sum(-1), 1, rtol=1e-5)
    logits, labels = teacher_logits(stage, range(40))
    logprob = torch.log_softmax(logits, -1)
    p = logprob.exp()
    # over all positions the draws of each id are as many as the full softmax says
    draws = torch.zeros(p.shape, dtype=torch.float64).scatter_add_(
        -1, torch.from_numpy(ids).long(), torch.from_numpy(np.exp(logprobs, dtype=np.float64)) * 200
    )
    expected, spread = 200 * p.sum((0, 1)), (200 * p * (1 - p)).sum((0, 1)).sqrt()
    deviation = ((draws.sum((0, 1)) - expected) / spread)[expected > 50]
    assert len(deviation) > 100
    assert float(deviation.abs().max()) < 5
    assert 0.8 < float(deviation.square().mean()) < 1.25
    wanted = {
        "entropy": -(p * logprob).sum(-1),
        "label_logprob": logprob.gather(-1, labels[..., None])[..., 0],
        "logsumexp": logits.logsumexp(-1),
        "standard_deviation": logits.std(-1, correction=0),
    }
    for name, column in zip(COLUMNS, columns, strict=True):
        np.testing.assert_allclose(column, wanted[name], rtol=2e-3, atol=1e-4)
    # the same draws from other tasks, in another micro batch
    again = captured(prepared(tiny, tmp_path / "again", **sampled, micro=7), ranks=2)
    for ours, theirs in zip(store.get_batch(range(40)), again.get_batch(range(40)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = prepared(tiny, tmp_path / "other", **{**sampled, "truncation": {**truncation, "seed": 4}})
    assert (captured(other).get(0)[0] != ids[0]).any()


@pytest.mark.parametrize("codec", ["context-40", "lossless"])
def test_other_codecs(tiny: TinyRun, tmp_path: Path, codec: str) -> None:
    store = captured(prepared(tiny, tmp_path / codec, codec=codec))
    plain = LogitStore.open(tiny.stage("pd", "capture").output)
    assert store.manifest.codec == codec
    assert store.manifest.fidelity.counts == plain.manifest.fidelity.counts
    assert (store.manifest.fidelity.kl_max == 0) == (codec == "lossless")
    assert store.verify() == []


def test_killed_at_random_moments_it_ends_in_the_same_bytes(tiny: TinyRun, tmp_path: Path) -> None:
    """SIGKILL while the stage runs as two tasks, then as one; at last it is started as one and goes on to its end."""
    stage = prepared(tiny, tmp_path / "killed", shard_sequences=4)
    shards, moments = 304 // 4, random.Random()
    for ranks, span in ((2, range(shards // 2)), (1, range(shards // 2, shards - 5))):
        wanted = moments.choice(span)
        tasks = [started(stage, rank, ranks) for rank in range(ranks)]
        while len(list(stage.output.glob("shard-*.bin"))) <= wanted:
            assert all(task.poll() is None or task.returncode == 0 for task in tasks)
            time.sleep(0.002)
        time.sleep(moments.random() * 0.01)
        for task in tasks:
            task.kill()
            task.communicate()
        assert not stage.done.exists()
        assert any(task.returncode == -signal.SIGKILL for task in tasks)
    task = started(stage)
    output, _ = task.communicate(timeout=300)
    assert task.returncode == 0, output
    assert stage.done.exists()
    assert read_progress(stage).step == 304
    straight = LogitStore.open(tiny.stage("pd", "capture").output)
    store = LogitStore.open(stage.output)
    assert store.verify() == []
    # other shards than the tiny run's, whole and by two processes: the same distributions
    for ours, theirs in zip(store.get_batch(range(304)), straight.get_batch(range(304)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert captured(prepared(tiny, tmp_path / "whole", shard_sequences=4)).manifest == store.manifest
    assert made.contents(stage.output) == made.contents(tmp_path / "whole" / "output")


def test_through_s3_with_a_listing_that_lags_and_connections_that_drop(tiny: TinyRun, tmp_path: Path) -> None:
    """Two tasks capture into a bucket; what comes out is the store on the disk, byte by byte."""
    pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    with s3.served() as (proxy, listing):
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir("distributions")
        listing.lag_s, proxy.drops = 2.0, 3
        stage = prepared(tiny, tmp_path / "stage", output="s3://distributions/logits/store")
        captured(stage, ranks=2)
        assert proxy.dropped == 3
        assert listing.hidden > 0
        listing.lag_s = 0.0
        there = {
            path.rsplit("/", 1)[-1]: files.cat_file(path)
            for path in files.ls("distributions/logits/store", detail=False)
        }
        assert there == made.contents(tiny.stage("pd", "capture").output)
        assert LogitStore.open("s3://distributions/logits/store").verify(workers=2) == []
