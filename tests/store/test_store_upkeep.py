"""`pdforge store repair`, `export` and `gc`, as processes."""

from __future__ import annotations

import fcntl
import json
import math

import numpy as np
import pytest

from pdforge.cli.store_gc import _delete
from pdforge.launch.drive import write_runs
from pdforge.launch.submission import Submission, claim
from pdforge.layout import StageDirectory, write_atomically
from pdforge.plan.build import make_plans
from pdforge.plan.jobs import TokenizeJob
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes
from pdforge.recipe.models import StandardLibraryCorpus, TrainedTokenizer
from pdforge.store.logits import LogitStore
from pdforge.store.tokenize import build_token_store
from pdforge.store.tokens import TokenStore
from tests.plan.conftest import CPU, RECIPE
from tests.store import made
from tests.store.test_store_command import pdforge


@pytest.fixture
def stage(tmp_path):
    """A compiled tokenize stage whose store is whole."""
    pytest.importorskip("tokenizers")
    directory = StageDirectory(tmp_path / "tokens" / "aa11")
    job = TokenizeJob(
        identity="aa11",
        title="tokenize",
        corpus=[StandardLibraryCorpus(kind="python-stdlib", bytes=60_000)],
        tokenizer=TrainedTokenizer(kind="trained", vocabulary=300),
        sequence_length=32,
        train_sequences=50,
        validation_sequences=5,
        seed=0,
        output=str(directory.output),
    )
    write_atomically(directory.job_json, job.model_dump_json())
    options = job.model_dump(exclude={"kind", "title", "output", "corpus", "tokenizer"})
    build_token_store(directory.output, corpus=job.corpus, tokenizer=job.tokenizer, **options)
    write_atomically(directory.done, "{}")
    return directory


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_repair_writes_the_damaged_shards_again(tmp_path, stage):
    before = made.contents(stage.output)
    whole = pdforge(tmp_path, "repair", "aa11")
    assert (whole.returncode, "nothing to repair" in whole.stdout) == (0, True)
    damage(stage.output / "validation-000000.bin")
    kept = (stage.output / "train-000000.bin").stat().st_mtime_ns
    result = pdforge(tmp_path, "repair", "aa")
    assert result.returncode == 0, result.stderr
    assert "validation-000000.bin.damaged" in result.stdout
    after = made.contents(stage.output)
    assert {name: data for name, data in after.items() if not name.endswith(".damaged")} == before
    assert (stage.output / "train-000000.bin").stat().st_mtime_ns == kept
    assert json.loads(stage.done.read_text())["identity"] == "aa11"
    assert pdforge(tmp_path, "verify").returncode == 0


def test_repair_of_what_cannot_be_repaired(tmp_path, stage):
    damage(stage.output / "train-000000.bin")
    stage.job_json.unlink()
    nothing_compiled = pdforge(tmp_path, "repair", "aa11")
    assert nothing_compiled.returncode == 2
    assert "holds no compiled stage" in nothing_compiled.stderr
    with stage.lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        running = pdforge(tmp_path, "repair", "aa11")
    assert (running.returncode, "an attempt of its stage runs" in running.stderr) == (2, True)
    assert "Traceback" not in nothing_compiled.stderr + running.stderr


def test_what_slurm_may_work_on_is_neither_repaired_nor_deleted(tmp_path, stage, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no command of SLURM
    now = {"submitted": 0.0, "by": "me@here"}
    claim(stage, Submission(number=1, job="7", profile=Profile(name="s", executor="slurm"), run="gone", **now))
    damage(stage.output / "train-000000.bin")
    stage.done.unlink()
    repaired = pdforge(tmp_path, "repair", "aa11")
    assert repaired.returncode == 2
    assert "job 7 of SLURM, which me@here submitted, may carry it out" in repaired.stderr
    assert not list(stage.output.glob("*.damaged"))
    assert pdforge(tmp_path, "gc", "--delete").returncode == 0
    assert stage.output.is_dir()
    stage.done.touch()  # its job is over
    assert pdforge(tmp_path, "gc", "--delete").returncode == 0
    assert not stage.path.exists()


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_exported_tokens_are_read_by_datasets(tmp_path, stage, format_):
    datasets = pytest.importorskip("datasets")
    result = pdforge(tmp_path, "export", "aa11", str(tmp_path / "out"), "--format", format_, "--split", "validation")
    assert result.returncode == 0, result.stderr
    files = [str(path) for path in sorted((tmp_path / "out").iterdir())]
    rows = datasets.load_dataset(format_, data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    split = TokenStore.open(stage.output).split("validation")
    assert len(rows) == len(split) == 5
    for number, row in enumerate(rows):
        tokens, positions = split.get(number)
        assert (row["sample"], row["tokens"], row["positions"]) == (number, tokens.tolist(), positions.tolist())


def test_exported_distributions_are_read_by_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    made.store(tmp_path / "logits" / "bb22" / "output", made.spec(columns=("entropy", "logsumexp")))
    assert pdforge(tmp_path, "export", "bb22", str(tmp_path / "out")).returncode == 0
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    held = LogitStore.open(tmp_path / "logits" / "bb22" / "output")
    assert len(rows) == 10
    for number in (0, 9):
        row, (ids, logprobs, mass, *extra) = rows[number], held.get(number, columns=("entropy", "logsumexp"))
        for name, column in zip(("entropy", "logsumexp"), extra, strict=True):
            np.testing.assert_array_equal(np.float32(row[name]), column)
        assert row["sample"] == number
        np.testing.assert_array_equal(np.float32(row["mass"]), mass)
        for position in range(len(mass)):
            kept = np.isfinite(logprobs[position])
            assert row["ids"][position] == ids[position][kept].tolist()
            assert all(map(math.isfinite, row["logprobs"][position]))
            np.testing.assert_array_equal(np.float32(row["logprobs"][position]), logprobs[position][kept])
    again = pdforge(tmp_path, "export", "bb22", str(tmp_path / "out"))
    assert (again.returncode, "is not an empty folder" in again.stderr) == (2, True)


def test_gc_lists_what_no_run_needs_and_deletes_only_when_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("some text")
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE.replace("CORPUS", str(tmp_path / "a.txt")))
    root = tmp_path / "root"
    plans = make_plans(load_recipes(str(recipe)), CPU, root)
    write_runs(plans, root)
    needed = {root / stage.directory for plan in plans for stage in plan.stages if stage.shared}
    other = {root / "tokens" / "old", root / "logits" / "old", root / "teachers" / "old"}
    for path in needed | other:
        path.mkdir(parents=True)
        (path / "data").write_bytes(b"x" * 100)
    listed = json.loads(pdforge(root, "gc", "--json").stdout)
    assert {row["path"] for row in listed} == {str(path) for path in other}
    assert {(row["bytes"], row["deleted"]) for row in listed} == {(100, False)}
    assert all(path.exists() for path in other)
    text = pdforge(root, "gc")
    assert "300 B that no run needs; --delete deletes them" in text.stdout
    assert pdforge(root, "gc", "--delete").returncode == 0
    assert not any(path.exists() for path in other)
    assert all(path.exists() for path in needed)
    assert "is needed by a run" in pdforge(root, "gc").stdout
    come_to_be_needed = min(needed)  # by a run that was written after the listing
    StageDirectory(come_to_be_needed).done.write_text("{}")
    assert not _delete(come_to_be_needed, root)
    assert StageDirectory(come_to_be_needed).done.is_file()
    (root / plans[0].directory / "plan.json").write_text("{")
    (root / "tokens" / "old").mkdir()
    unreadable = pdforge(root, "gc", "--delete")
    assert (unreadable.returncode, (root / "tokens" / "old").exists()) == (2, True)
