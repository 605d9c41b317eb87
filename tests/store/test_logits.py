"""The logit store: reading, cutting again, refusing what does not fit, and noticing every kind of damage."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xxhash

from pdforge.errors import StoreDamaged, StoreError, StoreMismatch, StoreMissing
from pdforge.store import shards as container
from pdforge.store.inspect import open_store, set_aside, verify
from pdforge.store.logits import LogitBlock, LogitStore, LogitWriter
from pdforge.store.ranks import Ranks
from tests.store import made


def test_what_was_written_is_read_by_sample(tmp_path):
    held = made.spec(codec="lossless")
    store = made.store(tmp_path / "s", held)
    for sample in range(held.sequences):
        shard, row = divmod(sample, held.shard_sequences)
        block = made.blocks_of(held, shard)[row]
        ids, logprobs, mass = store.get(sample)
        assert ids.dtype == np.int32
        assert logprobs.dtype == mass.dtype == np.float32
        inside = np.arange(held.top_k) < block.count.astype(int)[:, None]
        np.testing.assert_array_equal(ids[inside], block.ids)
        np.testing.assert_array_equal(logprobs[inside], block.logprobs)
        assert np.isneginf(logprobs[~inside]).all()
        assert not ids[~inside].any()
        np.testing.assert_array_equal(mass, block.mass)


def test_a_batch_is_its_samples_in_any_order(tmp_path):
    store = made.store(tmp_path / "s")
    batch = store.get_batch([7, 0, 7, 9], top_k=5)
    for row, sample in enumerate([7, 0, 7, 9]):
        for part, single in zip(batch, store.get(sample, top_k=5), strict=True):
            np.testing.assert_array_equal(part[row], single)


@pytest.mark.parametrize(("top_p", "top_k"), [(0.9, 20), (0.5, 20), (0.95, 3), (0.6, 2), (1e-9, 20)])
@pytest.mark.parametrize("ties", [False, True])
def test_cutting_again_is_what_capture_would_have_kept(tmp_path, top_p, top_k, ties):
    held = made.spec(codec="lossless", sequences=4)
    narrow = made.spec(codec="lossless", sequences=4, top_p=top_p, top_k=top_k)
    wide = made.store(tmp_path / "wide", held, ties=ties)
    direct = made.store(tmp_path / "narrow", narrow, ties=ties)
    for sample in range(4):
        again, wanted = wide.get(sample, top_p, top_k), direct.get(sample)
        np.testing.assert_array_equal(again[0], wanted[0])
        np.testing.assert_array_equal(again[1], wanted[1])
        np.testing.assert_allclose(again[2], wanted[2], rtol=1e-6)


def test_more_than_is_stored_is_refused(tmp_path):
    store = made.store(tmp_path / "s")
    for wanted in ({"top_p": 0.99}, {"top_k": 21}):
        with pytest.raises(StoreMismatch, match=r"top-p 0\.95, top-k 20"):
            store.get(0, **wanted)
    for sample in (-1, 10):
        with pytest.raises(StoreMissing, match="0 to 9"):
            store.get(sample)


def test_expectations(tmp_path):
    made.store(tmp_path / "s")
    wanted = {"tokens_content": "c0ffee", "teacher": "teacher-1", "top_p": 0.9, "top_k": 20, "sequences": 5}
    LogitStore.open(tmp_path / "s", expect=wanted)
    for field, value in {"teacher": "teacher-2", "top_k": 21, "sequences": 11, "tokenizer": "x", "typo": 1}.items():
        with pytest.raises(StoreMismatch, match=field):
            LogitStore.open(tmp_path / "s", expect={field: value})


def test_columns(tmp_path):
    held = made.spec(columns=("entropy",))
    store = made.store(tmp_path / "s", held)
    ids, logprobs, mass, entropy = store.get(5, top_k=3, columns=("entropy",))
    np.testing.assert_allclose(entropy, made.blocks_of(held, 1)[1].entropy, rtol=1e-3)
    for part, alone in zip((ids, logprobs, mass), store.get(5, top_k=3), strict=True):
        np.testing.assert_array_equal(part, alone)
    np.testing.assert_array_equal(store.get_batch([4, 5], columns=("entropy",))[3][1], entropy)
    with pytest.raises(StoreMismatch, match="label_logprob"):
        store.get(5, columns=("entropy", "label_logprob"))


def test_pickled_and_read_through_fsspec(tmp_path):
    store = made.store(tmp_path / "s")
    memory = fsspec.filesystem("memory")
    for name, data in made.contents(tmp_path / "s").items():
        memory.pipe_file(f"/logit-store/{name}", data)
    remote = LogitStore.open("memory://logit-store")
    for other in (remote, pickle.loads(pickle.dumps(store))):
        for ours, theirs in zip(store.get(6, 0.8), other.get(6, 0.8), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert remote.verify() == []
    with pytest.raises(StoreMissing):
        LogitStore.open("memory://nothing-here")


def test_unfinished_stores_say_what_is_missing(tmp_path):
    with pytest.raises(StoreMissing, match="no logit store"):
        LogitStore.open(tmp_path / "s")
    held = made.spec()
    writer = LogitWriter(tmp_path / "s", held)
    writer.write_shard(1, made.blocks_of(held, 1))
    assert writer.missing_shards() == [0, 2]
    for attempt in (lambda: LogitStore.open(tmp_path / "s"), lambda: writer.finish({})):
        with pytest.raises(StoreMissing, match="2 of 3 shards are not written yet: 0, 2"):
            attempt()


def test_a_folder_belongs_to_one_spec(tmp_path):
    LogitWriter(tmp_path / "s", made.spec())
    with pytest.raises(StoreMismatch, match=r"top_k is 20, not 10"):
        LogitWriter(tmp_path / "s", made.spec(top_k=10))


def test_a_shard_of_another_store_is_not_taken(tmp_path):
    for name, teacher in (("a", "teacher-1"), ("b", "teacher-2")):
        made.store(tmp_path / name, made.spec(teacher=teacher))
    shutil.copy(tmp_path / "b" / "shard-000001.bin", tmp_path / "a" / "shard-000001.bin")
    with pytest.raises(StoreMismatch, match="another store"):
        LogitWriter(tmp_path / "a", made.spec()).finish({})
    store = LogitStore.open(tmp_path / "a")
    with pytest.raises(StoreDamaged, match="another file"):
        store.get(5)


def test_the_first_writers_rank_table_holds(tmp_path):
    held = made.spec()
    counts = np.arange(held.vocabulary)
    first = LogitWriter(tmp_path / "s", held, lambda: Ranks.from_counts(counts))
    second = LogitWriter(tmp_path / "s", held, lambda: Ranks.from_counts(counts[::-1]))
    first.write_shard(0, made.blocks_of(held, 0))
    for shard in second.missing_shards():
        second.write_shard(shard, made.blocks_of(held, shard))
    second.finish({})
    plain = made.store(tmp_path / "plain", held)
    np.testing.assert_array_equal(
        LogitStore.open(tmp_path / "s").get_batch(range(10))[0], plain.get_batch(range(10))[0]
    )


def test_tables_are_learnt_once(tmp_path):
    """Learning them takes a pass of the teacher: a capture that goes on must not pay for it again."""
    learnt = []

    def learn():
        learnt.append(1)
        return Ranks.from_counts(np.arange(300))

    for _ in range(3):
        LogitWriter(tmp_path / "s", made.spec(), learn)
    assert learnt == [1]
    with pytest.raises(StoreMismatch, match="of 300 ids, the vocabulary has 299"):
        LogitWriter(tmp_path / "t", made.spec(vocabulary=299), learn)
    with pytest.raises(StoreMismatch, match="one rank table, not 2"):
        LogitWriter(tmp_path / "u", made.spec(), lambda: Ranks.learn(np.ones(2), np.array([1, 2]), 300))


def test_a_shard_of_another_rank_table_is_not_taken(tmp_path):
    held = made.spec()
    made.store(tmp_path / "a", held)
    other = LogitWriter(tmp_path / "b", held, lambda: Ranks.from_counts(np.arange(held.vocabulary)))
    other.write_shard(1, made.blocks_of(held, 1))
    shutil.copy(tmp_path / "b" / "shard-000001.bin", tmp_path / "a" / "shard-000001.bin")
    with pytest.raises(StoreMismatch, match="another store"):
        LogitWriter(tmp_path / "a", held).finish({})


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        LogitWriter(tmp_path / "file" / "s", made.spec())
    assert caught.value.remedy


def test_stores_never_import_torch():
    code = (
        "import sys, pkgutil, importlib, pdforge.store as s\n"
        "[importlib.import_module('pdforge.store.' + m.name) for m in pkgutil.iter_modules(s.__path__)]\n"
        "import pdforge.cli.store\n"
        "sys.exit(bool({'torch', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def _write(path, shards, barrier):
    held = made.spec(sequences=40)
    barrier.wait(60)
    counts = np.random.default_rng(shards[0]).integers(0, 99, held.vocabulary)
    writer = LogitWriter(path, held, lambda: Ranks.from_counts(counts))
    for shard in shards:
        writer.write_shard(shard, made.blocks_of(held, shard))


def test_several_processes_write_one_store(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [
        context.Process(target=_write, args=(tmp_path / "s", range(k, 10, 3), barrier), daemon=True) for k in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    held = made.spec(sequences=40)
    LogitWriter(tmp_path / "s", held).finish({})
    store, alone = LogitStore.open(tmp_path / "s"), made.store(tmp_path / "alone", held)
    for ours, theirs in zip(store.get_batch(range(40)), alone.get_batch(range(40)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # the rank table decides in what order a sum is taken
    assert store.verify(workers=2) == []


_SCRIPT = """
from pdforge.store.logits import LogitWriter
from tests.store import made
held = made.spec(sequences=100, shard_sequences=4)
writer = LogitWriter(sys.argv[1], held)
for shard in writer.missing_shards():
    print(shard, flush=True)
    writer.write_shard(shard, made.blocks_of(held, shard))
writer.finish({})
"""


def test_a_writer_killed_again_and_again_ends_in_the_same_bytes(tmp_path):
    path = tmp_path / "killed"
    started = []
    for at in (1, 2, 8, 21, 22):
        result = made.run_killed(_SCRIPT, path, at)
        assert result.returncode == -signal.SIGKILL
        started += result.stdout.split()[:1]
        with pytest.raises(StoreMissing):
            LogitStore.open(path)
    assert started == ["0", "4", "14"]  # the first two had no table yet; then each went on at the first missing shard
    assert made.run_killed(_SCRIPT, path, 0).returncode == 0
    made.store(tmp_path / "whole", made.spec(sequences=100, shard_sequences=4), capture={})
    assert made.contents(path) == made.contents(tmp_path / "whole")


def _good():
    return made.blocks_of(made.spec(), 2)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("keeps none", lambda b: {"count": np.r_[np.uint16(0), b.count[1:]]}),
        ("add up", lambda b: {"ids": b.ids[:-1]}),
        ("outside the vocabulary", lambda b: {"ids": np.r_[np.int32(300), b.ids[1:]]}),
        ("not finite", lambda b: {"logprobs": np.r_[b.logprobs[:-1], np.float32(-np.inf)]}),
        ("not finite", lambda b: {"logprobs": np.r_[np.float32(0.5), b.logprobs[1:]]}),
        ("falling", lambda b: {"logprobs": np.r_[np.float32(-20), b.logprobs[1:]]}),
        ("twice", lambda b: {"ids": np.r_[b.ids[1], b.ids[1:]]}),
        ("mass", lambda b: {"mass": np.zeros_like(b.mass)}),
        ("16 positions", lambda b: {"mass": b.mass[1:]}),
    ],
)
def test_blocks_that_break_a_rule_are_refused(tmp_path, rule, change):
    writer = LogitWriter(tmp_path / "s", made.spec())
    good = _good()
    assert good[0].count[0] > 1
    bad = LogitBlock(**{**vars(good[0]), **change(good[0])})
    with pytest.raises(StoreError, match=rule):
        writer.write_shard(2, [bad, good[1]])
    with pytest.raises(StoreError, match="none of this store's"):
        writer.write_shard(2, good[:1])
    assert writer.missing_shards() == [0, 1, 2]


def test_manifest_adds_up(tmp_path):
    store = made.store(tmp_path / "s")
    fidelity = store.manifest.fidelity
    assert fidelity.positions == 160 == sum(fidelity.counts) == sum(fidelity.masses)
    assert fidelity.entries == sum(n * count for n, count in enumerate(fidelity.counts))
    assert fidelity.sampled == 48
    assert 0 < fidelity.kl_mean <= fidelity.kl_max < 2e-3
    assert store.manifest.capture == {"held_out_loss": 2.5}


# --- damage ---------------------------------------------------------------------------------------------------------


def _flip(path, position, mask):
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def test_any_changed_byte_is_found(tmp_path):
    """2,000 flips: every byte of headers, indexes and trailers at least once, the rest at random."""
    made.store(tmp_path / "s", made.spec(sequences=3, shard_sequences=2, sequence_length=8, vocabulary=60))
    rng = np.random.default_rng(0)
    files = made.contents(tmp_path / "s")
    edges = [(name, at) for name, data in files.items() for at in (*range(24), *range(len(data) - 150, len(data)))]
    more = 2000 - len(edges)
    assert more > 1000
    names = rng.choice(list(files), more)
    for name, position in [*edges, *((name, int(rng.integers(len(files[name])))) for name in names)]:
        path = tmp_path / "s" / name
        _flip(path, position, int(rng.integers(1, 256)))
        try:
            found = {damage.file for damage in verify(tmp_path / "s")}
        except StoreMismatch as error:  # the manifest's version or kind: named, and refused
            found = {name} if "version" in str(error) or "holds" in str(error) else set()
        assert found == {name}, (name, position)
        path.write_bytes(files[name])
    assert verify(tmp_path / "s") == []


def test_reading_a_damaged_block_names_file_and_block_and_spares_the_others(tmp_path):
    store = made.store(tmp_path / "s")
    path = tmp_path / "s" / "shard-000001.bin"
    reader = container.ShardReader(store._folder.file(path.name))
    _flip(path, int(reader._offsets[2]) + 5, 1)
    store = LogitStore.open(tmp_path / "s")
    with pytest.raises(StoreDamaged, match=r"shard-000001\.bin, block 2: checksum") as caught:
        store.get(6)
    assert "verify" in caught.value.remedy
    store.get_batch([4, 5, 7])


@pytest.mark.parametrize("how", ["empty", "cut", "foreign", "gone", "zeros", "later"])
@pytest.mark.parametrize("name", ["shard-000001.bin", "ranks.bin", "manifest.json"])
def test_whole_files_damaged(tmp_path, how, name):
    made.store(tmp_path / "s")
    path = tmp_path / "s" / name
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "later":
        if name == "manifest.json":
            path.write_text(json.dumps({**json.loads(data), "version": 2}))
        else:
            _rewrite_header(path, container._HEADER.pack(container.MAGIC, 2))
    else:
        path.write_bytes({"empty": b"", "cut": data[:-7], "foreign": b"PK\3\4" * 100, "zeros": bytes(len(data))}[how])
    with pytest.raises((StoreDamaged, StoreMismatch, StoreMissing)) as caught:
        LogitStore.open(tmp_path / "s").get(5)
    assert caught.value.remedy
    if how == "later":
        assert "update pdforge" in str(caught.value)
    elif not (how == "gone" and name == "manifest.json"):
        assert [damage.file for damage in verify(tmp_path / "s")] == [name]


def _rewrite_header(path, header):
    """The file as a later pdforge with the same trailer would have written it."""
    data = path.read_bytes()
    offset, length = struct.unpack_from("<QQ", data, len(data) - 32)
    index, span = data[offset : offset + length], data[-32:-16]
    checksum = struct.pack("<Q", xxhash.xxh3_64_intdigest(header + index + span))
    path.write_bytes(header + data[16:-16] + checksum + container.MAGIC)


def test_set_aside_then_capture_again(tmp_path):
    stage = tmp_path / "stage"
    made.store(stage / "output")
    (stage / "done.json").write_text("{}")
    before = made.contents(stage / "output")
    _flip(stage / "output" / "shard-000002.bin", 40, 4)
    damage = verify(stage / "output")
    assert [d.file for d in damage] == ["shard-000002.bin"]
    set_aside(stage / "output", [d.file for d in damage])
    assert not (stage / "done.json").exists()
    assert (stage / "output" / "shard-000002.bin.damaged").exists()
    with pytest.raises(StoreMissing, match="1 of 3 shards are not written yet: 2"):
        open_store(stage / "output")
    made.store(stage / "output")
    after = {k: v for k, v in made.contents(stage / "output").items() if not k.endswith(".damaged")}
    assert after == before
