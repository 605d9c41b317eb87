"""The whole path for real, and again in parts: by hand, on other numbers of processes, killed."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pdforge.layout import StageDirectory
from pdforge.plan.jobs import CaptureJob, ModelSource
from pdforge.plan.model import StageKind
from pdforge.stages.entry import read_job
from pdforge.store.logits import LogitStore
from pdforge.store.tokens import TokenStore
from pdforge.titan.inference import load
from tests.stages.conftest import ENVIRONMENT, TINY, TINY_FULL, TinyRun, pdforge, results, rows, steps, torchrun

pytestmark = pytest.mark.slow


def test_results(tiny: TinyRun) -> None:
    for part in ("teacher", "lm", "pd", "held-out loss"):
        assert part in tiny.output
    for variant, kind in (("pd", "pretrain-teacher"), ("lm", "train"), ("pd", "train")):
        # every model has learnt something: below a uniform guess
        assert 0 < results(tiny.stage(variant, kind))["heldout_loss"] < math.log(512)
    capture = results(tiny.stage("pd", "capture"))
    assert 0 < capture["kept_mass"] <= 0.96
    assert 1 <= capture["kept_count"] <= 50


def test_variants_share_stores_and_start(tiny: TinyRun) -> None:
    assert tiny.stage("lm", "tokenize") == tiny.stage("pd", "tokenize")
    assert tiny.plans["lm"].stage("capture") is None
    lm, pd = (steps(rows(tiny.stage(variant, "train"))) for variant in ("lm", "pd"))
    assert [row["step"] for row in lm] == [row["step"] for row in pd] == list(range(1, 20))
    # the same initial weights on the same batch
    assert lm[0]["lm_loss"] == pytest.approx(pd[0]["lm_loss"], rel=1e-6)
    assert pd[0]["loss"] == pytest.approx(
        (1 - pd[0]["alpha"]) * pd[0]["lm_loss"] + pd[0]["alpha"] * pd[0]["kd_loss"], rel=1e-5
    )


def test_the_store_holds_the_teacher(tiny: TinyRun) -> None:
    """Captured log-probabilities of the labels explain the training text as well as the trained teacher does."""
    tokens = TokenStore.open(tiny.stage("pd", "tokenize").output).split("train")
    store = LogitStore.open(tiny.stage("pd", "capture").output)
    ids, logprobs, mass = store.get(3)
    labels = tokens.get(3)[0][1:]
    kept = (ids == labels[:, None]) & (logprobs > -math.inf)
    # the label is among the kept ids about as often as the teacher gives it probability; shifted by one it is not
    hits, shifted = kept.any(1).mean(), (ids[:-1] == labels[1:, None]).any(1).mean()
    assert hits > shifted
    assert ((mass > 0) & (mass <= 1)).all()
    assert store.verify() == []


def test_heldout_loss_during_training_and_at_its_end(tiny: TinyRun) -> None:
    measured = [row for row in rows(tiny.stage("pd", "train")) if "heldout_loss" in row]
    assert [row["step"] for row in measured] == [8, 16, 19]
    assert measured[-1]["heldout_loss"] == results(tiny.stage("pd", "train"))["heldout_loss"]


def test_running_again_does_nothing(tiny: TinyRun) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.root.rglob("done.json")}
    pdforge("run", TINY, "--root", tiny.root, "--processes", "2")
    assert {path: path.stat().st_mtime_ns for path in tiny.root.rglob("done.json")} == before
    assert not list(tiny.root.rglob("attempts/0002"))


def test_the_compiled_module_by_hand(tiny: TinyRun, tmp_path) -> None:
    """torchrun on the compiled module, no pdforge command: the same numbers, to the last digit."""
    stage = tiny.stage("pd", "train")
    arguments = ("--module", "train", "--config", "config", "--dump_folder", tmp_path, "--training.steps", "2")
    torchrun(2, "pdforge.titan.train", *arguments, cwd=stage.job)
    assert steps(rows(StageDirectory(tmp_path))) == steps(rows(stage))[:2]


def test_two_processes_instead_of_one(tiny: TinyRun, tmp_path) -> None:
    """From one seed checkpoint, the first steps agree: the same samples, the same mathematics."""
    job = tiny.stage("pd", "train").job
    common = ("--module", "train", "--config", "config")
    seed = tmp_path / "seed"
    torchrun(1, "pdforge.titan.train", *common, "--dump_folder", seed, "--checkpoint.create_seed_checkpoint", cwd=job)
    start = ("--checkpoint.initial_load_path", StageDirectory(seed).checkpoints / "step-0")
    for processes in (1, 2):
        arguments = (*common, "--dump_folder", tmp_path / str(processes), *start, "--training.steps", "3")
        torchrun(processes, "pdforge.titan.train", *arguments, cwd=job)
    one, two = (steps(rows(StageDirectory(tmp_path / str(processes)))) for processes in (1, 2))
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        for key in ("loss", "lm_loss", "kd_loss"):
            assert a[key] == pytest.approx(b[key], rel=1e-5)


def test_capture_runs_the_teacher_that_was_trained(tiny: TinyRun) -> None:
    """Loaded as capture loads it, the teacher has the held-out loss that its own training measured."""
    job = read_job(tiny.stage("pd", "capture"))
    assert isinstance(job, CaptureJob)
    assert isinstance(job.teacher, ModelSource)
    model = load(job.teacher, torch.device("cpu"), torch.float32)
    heldout = TokenStore.open(job.tokens).split("validation")
    tokens, positions = (torch.from_numpy(part).long() for part in heldout.get_batch(range(len(heldout))))
    logits = model.logits(model.hidden(tokens[:, :-1], positions))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert float(loss) == pytest.approx(results(tiny.stage("pd", "pretrain-teacher"))["heldout_loss"], rel=1e-5)


@pytest.mark.parametrize("kind", ["pretrain-teacher", "train"])
def test_documents_do_not_see_each_other_in_training(tiny: TinyRun, tmp_path, kind: StageKind) -> None:
    """In the trainer's own batch preparation and sharded model; as one document the same tokens do matter."""
    module = tiny.stage("pd", kind).train_module
    output = torchrun(2, "tests.stages.mask_probe", module, tmp_path, cwd=Path(__file__).parents[2]).stdout
    reports = [json.loads(found) for found in re.findall(r"PROBE (\{.*?\})", output)]  # two may share a line
    assert reports == [{"first differs": True, "second differs": False, "differs as one document": True}] * 2


def test_documents_do_not_see_each_other_in_capture(tiny: TinyRun) -> None:
    """With the trained teacher, as capture loads it."""
    job = read_job(tiny.stage("pd", "capture"))
    assert isinstance(job, CaptureJob)
    assert isinstance(job.teacher, ModelSource)
    model = load(job.teacher, torch.device("cpu"), torch.float32)
    first, length = 20, job.teacher.sequence_length
    tokens = torch.randint(0, 512, (2, length), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[:, :first] = 1
    positions = torch.cat([torch.arange(first), torch.arange(length - first)]).expand(2, -1)
    a, b = (model.logits(model.hidden(each, positions)) for each in (tokens, other))
    assert not torch.equal(a[:, :first], b[:, :first])
    assert torch.equal(a[:, first:], b[:, first:])


def test_killed_once_in_each_stage(full: TinyRun, tmp_path) -> None:
    """SIGKILL of everything in each stage, then the same command: bit-identical results, metrics and exported files."""
    script = Path(__file__).parents[2] / "scripts" / "kill_each_stage.py"
    places = ["--root", str(tmp_path), "--straight", str(full.root)]
    which = [str(TINY_FULL), "--variant", "pd", "--seed", str(random.randrange(1000))]
    command = [sys.executable, str(script), *which, *places]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("same bits") == done.stdout.count("killed after") == 8


def test_every_stage_is_measured_and_predicts_itself(tiny: TinyRun, tmp_path) -> None:
    kinds = sorted(path.name.rpartition("-")[0] for path in (tiny.root / "measured" / "local").iterdir())
    assert kinds == ["capture", "pretrain-teacher", "tokenize", "train", "train"]
    planned = pdforge("plan", TINY, "--root", tiny.root, "--processes", "2", "--set", "data.seed=7", "--json").stdout
    for stage in json.loads(planned)["pages"][0]["stages"]:
        assert stage["duration"]["source"] == "measured here once", stage["title"]
        assert not stage["done"]
    capture = results(tiny.stage("pd", "capture"))
    [store] = [stage["store"] for stage in json.loads(planned)["pages"][0]["stages"] if stage["store"]]
    assert store["bytes"] == pytest.approx(capture["bytes"], rel=1e-6)
    beside = pdforge("report", tiny.plans["pd"].directory, "--root", tiny.root, "--plan-vs-actual").stdout
    assert "entries a token" in beside
