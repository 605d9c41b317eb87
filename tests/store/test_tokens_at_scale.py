"""Token stores built by several tasks, of several sources: the same bytes however the work is split, and no leak."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import signal
import threading
import time
from functools import partial
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest

from pdforge.errors import StoreError
from pdforge.recipe.models import JsonLinesCorpus, MixtureCorpus, TrainedTokenizer
from pdforge.store import corpus_files, encoded, pack, tokenize
from pdforge.store.pack import shares_of, shuffled
from pdforge.store.tokenize import BuildStopped, Task, build_token_store
from pdforge.store.tokens import TokenStore
from tests.store import made

pytest.importorskip("tokenizers")
from tokenizers import Tokenizer

LENGTH = 16


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Many units, parts and shards of little text."""
    monkeypatch.setattr(corpus_files, "_UNIT_BYTES", 1000)
    monkeypatch.setattr(encoded, "PART_BYTES", 1500)
    monkeypatch.setattr(encoded, "_BLOCK_IDS", 100)
    monkeypatch.setattr(pack, "SHARD_SEQUENCES", 13)
    monkeypatch.setattr(pack, "_WINDOW", 40)
    monkeypatch.setattr(pack, "_CHUNK", 37)


def write(folder, name, texts):
    path = folder / name
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def texts_of(source, count, seed):
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(60)]
    return [f"{source} {n}: " + " ".join(rng.choice(words, rng.integers(1, 60))) for n in range(count)]


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, size in enumerate([40, 3, 2, 90, 25, 60, 1, 70]):
        write(folder, f"{number}.jsonl", texts_of(f"f{number}", size, number))
    return [JsonLinesCorpus(kind="jsonl", path=str(folder / "*.jsonl"))]


def build(output, corpus, **changes):
    options = {
        "corpus": corpus,
        "tokenizer": TrainedTokenizer(kind="trained", vocabulary=400),
        "sequence_length": LENGTH,
        "train_sequences": 600,
        "validation_sequences": 40,
        "seed": 0,
        "identity": "id",
    }
    return build_token_store(Path(output), **{**options, **changes})


def together(works):
    """Run these at once; their errors."""
    errors = []

    def guarded(work):
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a test reports whatever ends a task
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return errors


def documents_of(store, name):
    tokenizer = Tokenizer.from_str(store.tokenizer())
    split = store.split(name)
    found = set()
    for number in range(len(split)):
        tokens, _ = split.get(number)
        starts = np.flatnonzero(tokens == store.manifest.separator)
        found |= {tokenizer.decode(tokens[a + 1 : b].tolist()) for a, b in pairwise(starts)}
    return found


@pytest.mark.parametrize("ranks", [2, 3, 11])
def test_any_number_of_tasks_writes_the_same_bytes(corpus, tmp_path, ranks):
    build(tmp_path / "one", corpus)
    works = [partial(build, tmp_path / "many", corpus, task=Task(rank, ranks)) for rank in range(ranks)]
    assert together(works) == []
    assert made.contents(tmp_path / "many") == made.contents(tmp_path / "one")


def test_a_build_goes_on_with_another_number_of_tasks(corpus, tmp_path):
    build(tmp_path / "one", corpus)
    checks = iter(range(10**6))
    stopping = [
        partial(build, tmp_path / "many", corpus, task=Task(rank, 3, lambda: next(checks) > 25)) for rank in range(3)
    ]
    stopped = together(stopping)
    assert len(stopped) == 3
    assert all(isinstance(error, BuildStopped) for error in stopped)
    assert list((tmp_path / "many" / ".build").glob("part-*"))
    assert together([partial(build, tmp_path / "many", corpus, task=Task(rank, 2)) for rank in range(2)]) == []
    assert made.contents(tmp_path / "many") == made.contents(tmp_path / "one")


def test_a_task_does_the_work_of_those_that_never_start(corpus, tmp_path, monkeypatch):
    """Task 0 of 3 alone; what it took over is the same. While others may still come, it waits for them."""
    build(tmp_path / "one", corpus)
    monkeypatch.setattr(tokenize, "POLL_S", 0.01)
    monkeypatch.setattr(tokenize, "PATIENCE_S", 3600)
    checks = iter(range(10**6))
    with pytest.raises(BuildStopped):
        build(tmp_path / "alone", corpus, task=Task(0, 3, lambda: next(checks) > 100))
    assert not (tmp_path / "alone" / "manifest.json").exists()
    monkeypatch.setattr(tokenize, "PATIENCE_S", 0.1)
    build(tmp_path / "alone", corpus, task=Task(0, 3))
    assert made.contents(tmp_path / "alone") == made.contents(tmp_path / "one")


def test_tasks_that_take_over_work_that_is_still_being_done(corpus, tmp_path, monkeypatch):
    """Nobody waits for anybody: every piece may be written by all at once."""
    build(tmp_path / "one", corpus)
    monkeypatch.setattr(tokenize, "PATIENCE_S", 0)
    works = [partial(build, tmp_path / "many", corpus, task=Task(rank, 5)) for rank in range(5)]
    assert together(works) == []
    assert made.contents(tmp_path / "many") == made.contents(tmp_path / "one")


def test_tasks_that_still_write_when_task_0_ends_the_build(corpus, tmp_path):
    """What they write to is left to them, and what they add does not keep the build from ending."""
    output, ended = tmp_path / "many", threading.Event()
    (output / ".build").mkdir(parents=True)
    for name, age_s in (("late", 1), ("left", 1000)):
        (path := output / f".train-000000.bin.{name}.tmp").touch()
        os.utime(path, (time.time() - age_s,) * 2)

    def adding():
        for number in count():
            if ended.is_set():
                return
            with contextlib.suppress(FileNotFoundError):
                (output / ".build" / f".part-{number}.tmp").touch()

    def building():
        try:
            works = [partial(build, output, corpus, task=Task(rank, 2)) for rank in range(2)]
            assert together(works) == []
        finally:
            ended.set()

    assert together([adding, building]) == []
    assert [path.name for path in output.glob(".*.tmp")] == [".train-000000.bin.late.tmp"]
    assert TokenStore.open(output).verify() == []


def test_one_of_two_killed_and_gone_on_with_three(corpus, tmp_path):
    """Processes, SIGKILL: the other of the two stops when asked to, three go on, to the same bytes."""
    build(tmp_path / "one", corpus)
    output = tmp_path / "many"
    two = [_forked(output, corpus, Task(rank, 2, partial(path_exists, tmp_path / "stop"))) for rank in range(2)]
    _until(lambda: list((output / ".build").glob("part-*")))
    two[1].kill()
    (tmp_path / "stop").touch()
    for process in two:
        process.join(60)
    assert two[1].exitcode == -signal.SIGKILL
    three = [_forked(output, corpus, Task(rank, 3)) for rank in range(3)]
    for process in three:
        process.join(120)
    assert [process.exitcode for process in three] == [0, 0, 0]
    assert made.contents(output) == made.contents(tmp_path / "one")


def path_exists(path):
    time.sleep(0.05)  # between two pieces: slow enough to be killed before the end
    return path.exists()


def _forked(output, corpus, task):
    process = multiprocessing.get_context("fork").Process(target=partial(build, output, corpus, task=task))
    process.start()
    return process


def _until(there):
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_task_says_that_there_is_too_little_text(corpus, tmp_path):
    works = [partial(build, tmp_path / "s", corpus, task=Task(rank, 2), train_sequences=10_000) for rank in range(2)]
    errors = together(works)
    assert [type(error) for error in errors] == [StoreError, StoreError]
    assert all("the corpus holds" in error.message for error in errors)


def test_damaged_encoded_text_is_encoded_again(corpus, tmp_path, monkeypatch):
    build(tmp_path / "whole", corpus)
    real = pack.SplitPacker.write
    monkeypatch.setattr(pack.SplitPacker, "write", lambda *_: (_ for _ in ()).throw(BuildStopped))
    with pytest.raises(BuildStopped):
        build(tmp_path / "s", corpus)
    monkeypatch.setattr(pack.SplitPacker, "write", real)
    parts = sorted((tmp_path / "s" / ".build").glob("part-*"))
    assert len(parts) > 5
    columns, ids = bytearray(parts[0].read_bytes()), bytearray(parts[1].read_bytes())
    columns[20] ^= 1
    ids[len(ids) * 2 // 3] ^= 1
    parts[0].write_bytes(columns)
    parts[1].write_bytes(ids)
    with pytest.raises(StoreError, match="is damaged, and deleted") as caught:
        build(tmp_path / "s", corpus)
    assert "start the stage again" in caught.value.remedy
    build(tmp_path / "s", corpus)
    assert made.contents(tmp_path / "s") == made.contents(tmp_path / "whole")


@pytest.fixture
def mixture(tmp_path):
    """Two sources that share a third of their documents."""
    folder = tmp_path / "mixture"
    folder.mkdir()
    same = texts_of("same", 150, 7)
    write(folder, "a.jsonl", [*texts_of("a", 300, 1), *same])
    write(folder, "b.jsonl", [*same[::-1], *texts_of("b", 300, 2)])

    def of(a, b):
        parts = [JsonLinesCorpus(kind="jsonl", path=str(folder / f"{name}.jsonl")) for name in "ab"]
        weighted = [{"corpus": c, "weight": w} for c, w in zip(parts, (a, b), strict=True)]
        return [MixtureCorpus(kind="mixture", sources=weighted)]

    return of


def test_sources_give_tokens_by_their_weights(mixture, tmp_path):
    for weights, of_a in (((3, 1), 30), ((1, 3), 10)):
        path = tmp_path / str(of_a)
        build(path, mixture(*weights), sequence_length=128, train_sequences=40, validation_sequences=4)
        found = TokenStore.open(path)
        tokens, _ = found.split("train").get_batch(range(40))
        ordered = np.empty_like(tokens)
        ordered[shuffled(40, 0)] = tokens
        tokenizer = Tokenizer.from_str(found.tokenizer())
        names = [set(re.findall(r"\b(a|b|same) \d+:", tokenizer.decode(row.tolist()))) for row in ordered]
        assert set().union(*names[:of_a]) == {"a"}
        assert set().union(*names[of_a:]) >= {"same"}
        assert "a" not in set().union(*names[of_a:])
    assert shares_of(400, [0.75, 0.25]) == [300, 100]
    assert shares_of(10, [1 / 3, 1 / 3, 1 / 3]) == [4, 3, 3]
    assert sum(shares_of(10**12 + 7, [0.1] * 10)) == 10**12 + 7


def test_no_document_is_in_both_splits_of_a_mixture(mixture, tmp_path):
    build(tmp_path / "s", mixture(1, 1), sequence_length=512, train_sequences=36, validation_sequences=8)
    found = TokenStore.open(tmp_path / "s")
    train, validation = documents_of(found, "train"), documents_of(found, "validation")
    assert any(document.startswith("same") for document in train)
    assert any(document.startswith("same") for document in validation)
    assert not train & validation


def test_mixtures_are_split_over_tasks_as_well(mixture, tmp_path):
    build(tmp_path / "one", mixture(2, 1))
    assert together([partial(build, tmp_path / "two", mixture(2, 1), task=Task(rank, 2)) for rank in range(2)]) == []
    assert made.contents(tmp_path / "one") == made.contents(tmp_path / "two")


def test_a_source_with_too_little_text_is_named(mixture, tmp_path):
    with pytest.raises(StoreError, match="source 2 of the corpus holds"):
        build(tmp_path / "s", mixture(1, 1000), train_sequences=3000)


def test_windows_of_the_shuffle_are_parts_of_the_whole():
    whole = shuffled(1000, 5)
    assert sorted(whole.tolist()) == list(range(1000))
    for start, stop in ((0, 1), (0, 1000), (17, 500), (999, 1000), (400, 2000), (1000, 1200)):
        assert shuffled(1000, 5, start, stop).tolist() == whole[start:stop].tolist()


def test_numbers_beyond_32_bits():
    count = 2**33 + 1
    assert shares_of(count, [0.5, 0.5]) == [2**32 + 1, 2**32]
