"""Stores on S3: a real HTTP server (moto's), s3fs, and a proxy between them that drops connections."""

from __future__ import annotations

import gzip
import json
import os
import time

import fsspec
import numpy as np
import pytest
import zstandard

from pdforge.errors import StoreDamaged, StoreError, StoreMissing
from pdforge.recipe.models import JsonLinesCorpus, TrainedTokenizer
from pdforge.store import remote
from pdforge.store.files import Folder
from pdforge.store.inspect import open_store, verify
from pdforge.store.logits import LogitStore, LogitWriter
from pdforge.store.remote import CACHE_SIZE_VARIABLE, CACHE_VARIABLE
from pdforge.store.tokenize import build_token_store
from pdforge.store.tokens import TokenStore
from tests.store import made, s3
from tests.store.test_store_command import pdforge

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def served():
    with s3.served() as both:
        yield both


@pytest.fixture
def proxy(served):
    return served[0]


@pytest.fixture
def bucket(proxy, request):
    import s3fs  # noqa: PLC0415 - may not be installed

    name = "b" + str(abs(hash(request.node.name)))
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"


def test_written_read_and_verified_on_s3(bucket, tmp_path):
    there, here = made.store(f"{bucket}/logits"), made.store(tmp_path / "logits")
    assert there.manifest == here.manifest
    for sample in (0, 9, 4, 5, 6):
        for ours, theirs in zip(there.get(sample), here.get(sample), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert verify(f"{bucket}/logits") == []
    assert isinstance(open_store(f"{bucket}/logits"), LogitStore)
    assert pdforge(tmp_path, "verify", f"{bucket}/logits").stdout.strip().endswith("whole")
    assert '"bits_per_entry"' in pdforge(tmp_path, "stats", f"{bucket}/logits", "--json").stdout


def test_damage_on_s3_is_named(bucket):
    import s3fs  # noqa: PLC0415 - may not be installed

    made.store(f"{bucket}/logits")
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    path = f"{bucket}/logits/shard-000001.bin"
    data = bytearray(files.cat_file(path))
    data[200] ^= 1
    files.pipe_file(path, bytes(data))
    assert [damage.file for damage in verify(f"{bucket}/logits")] == ["shard-000001.bin"]
    with pytest.raises(StoreDamaged, match=r"shard-000001\.bin, block 0"):
        LogitStore.open(f"{bucket}/logits").get(4)
    files.rm(path)
    with pytest.raises(StoreMissing, match="no such file"):
        LogitStore.open(f"{bucket}/logits").get(4)


def test_writers_see_at_once_what_others_have_written(bucket):
    held = made.spec()
    one, two = LogitWriter(f"{bucket}/logits", held), LogitWriter(f"{bucket}/logits", held)
    assert one.missing_shards() == two.missing_shards() == [0, 1, 2]
    one.write_shard(1, made.blocks_of(held, 1))
    assert two.missing_shards() == [0, 2]
    two.write_shard(0, made.blocks_of(held, 0))
    with pytest.raises(StoreMissing, match="1 of 3 shards are not written yet: 2"):
        one.finish({})


def test_a_listing_that_lags_only_delays(bucket, served, tmp_path):
    """Shards that a listing does not show yet count as missing: written once more, to the same bytes, or waited for."""
    listing = served[1]
    held = made.spec()
    listing.lag_s, listing.hidden = 3600, 0
    try:
        writer = LogitWriter(f"{bucket}/logits", held)
        for shard in range(held.shards):
            writer.write_shard(shard, made.blocks_of(held, shard))
        assert writer.missing_shards() == [0, 1, 2]
        assert listing.hidden > 0
        with pytest.raises(StoreMissing, match="3 of 3 shards"):
            writer.finish({})
        again = LogitWriter(f"{bucket}/logits", held)
        again.write_shard(1, made.blocks_of(held, 1))
        listing.lag_s = 0
        assert again.missing_shards() == []
        manifest = again.finish({"held_out_loss": 2.5})
        listing.lag_s = 3600  # a reader needs no listing
        assert verify(f"{bucket}/logits") == []
        assert manifest == made.store(tmp_path / "here").manifest
    finally:
        listing.lag_s = 0


def test_dropped_connections_are_made_again(bucket, proxy, monkeypatch):
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01, 0.01, 0.01))
    expected = made.store(f"{bucket}/logits").manifest
    before = proxy.dropped
    proxy.drops = 2
    store = LogitStore.open(f"{bucket}/logits")
    proxy.drops = 2
    assert store.manifest == expected
    assert store.verify() == []
    assert proxy.dropped > before
    proxy.drops = 10**6
    with pytest.raises(StoreError, match="cannot be reached"):
        LogitStore.open(f"{bucket}/logits")
    proxy.drops = 0
    assert LogitStore.open(f"{bucket}/logits").verify() == []


def test_a_file_read_in_order_is_fetched_ahead(bucket, monkeypatch):
    monkeypatch.setattr(remote, "READ_AHEAD", 4000)
    held = made.spec(sequences=64, shard_sequences=64)
    made.store(f"{bucket}/logits", held)
    requests = []
    real = remote.RemotePlace.read
    monkeypatch.setattr(remote.RemotePlace, "read", lambda self, *span: (requests.append(span), real(self, *span))[1])
    store = LogitStore.open(f"{bucket}/logits")
    everything = [store.get(sample) for sample in range(64)]
    in_order = len(requests)
    requests.clear()
    again = LogitStore.open(f"{bucket}/logits")
    for sample in range(63, -1, -1):
        np.testing.assert_array_equal(again.get(sample)[1], everything[sample][1])
    assert in_order < len(requests) / 2


def test_the_cache_keeps_to_its_size_and_never_serves_an_old_file(bucket, tmp_path, monkeypatch):
    import s3fs  # noqa: PLC0415 - may not be installed

    files = s3fs.S3FileSystem(skip_instance_cache=True)
    held = made.spec(sequences=40)
    made.store(f"{bucket}/logits", held)
    shard = files.size(f"{bucket}/logits/shard-000003.bin")
    limit = 4 * shard
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(CACHE_SIZE_VARIABLE, str(limit))

    def size():
        return sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())

    store = LogitStore.open(f"{bucket}/logits")
    for sample in range(40):
        store.get(sample)
        assert size() <= limit
    assert size() > shard
    last = LogitStore.open(f"{bucket}/logits").get(39)
    kept = {path: path.stat().st_ino for path in (tmp_path / "cache").iterdir()}
    again = LogitStore.open(f"{bucket}/logits")
    np.testing.assert_array_equal(again.get(39)[0], last[0])
    assert {path: path.stat().st_ino for path in (tmp_path / "cache").iterdir()} == kept
    path = f"{bucket}/logits/shard-000009.bin"
    data = bytearray(files.cat_file(path))
    data[100] ^= 1
    time.sleep(1.1)  # S3 counts times in seconds
    files.pipe_file(path, bytes(data))
    with pytest.raises(StoreDamaged):
        LogitStore.open(f"{bucket}/logits").get(36)
    monkeypatch.setenv(CACHE_SIZE_VARIABLE, "much")
    with pytest.raises(StoreError, match=CACHE_SIZE_VARIABLE):
        LogitStore.open(f"{bucket}/logits")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache's folder, and what opens a file of 1,000 bytes through it."""
    fsspec.filesystem("memory").pipe_file("/far/file", bytes(1000))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache", lambda: Folder("memory://far").file("file")


def test_an_entry_of_the_cache_that_was_cut_is_fetched_again(cache):
    folder, opened = cache
    opened()
    [entry] = folder.iterdir()
    entry.write_bytes(bytes(10))
    assert opened().size == 1000
    assert [(path, path.stat().st_size) for path in folder.iterdir()] == [(entry, 1000)]


def test_an_entry_of_the_cache_is_durable_before_it_has_its_name(cache, monkeypatch):
    folder, opened = cache
    seen, fsync = [], os.fsync

    def observed(descriptor):
        seen.append((os.fstat(descriptor).st_size, [path.suffix for path in folder.iterdir()]))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    opened()
    assert seen == [(1000, [".tmp"])]


def test_room_is_not_made_of_what_another_process_fetches(cache, monkeypatch):
    folder, opened = cache
    folder.mkdir()
    for name, age_s in (("fetched", 5), ("left", 5000)):
        (path := folder / f"{name}.tmp").write_bytes(bytes(600))
        os.utime(path, (time.time() - age_s,) * 2)
    monkeypatch.setenv(CACHE_SIZE_VARIABLE, "1200")
    opened()
    assert {path.stem for path in folder.iterdir() if path.suffix} == {"fetched"}


@pytest.fixture
def token_store(bucket, tmp_path):
    """A token store made here of compressed files there, and its copy there."""
    pytest.importorskip("tokenizers")
    import s3fs  # noqa: PLC0415 - may not be installed

    files = s3fs.S3FileSystem(skip_instance_cache=True)
    rows = [json.dumps({"text": f"document {n} " + "word " * (n % 30)}).encode() + b"\n" for n in range(400)]
    plain = [b"".join(rows[:200]), b"".join(rows[200:])]
    files.pipe_file(f"{bucket}/corpus/a.jsonl.gz", gzip.compress(plain[0]))
    files.pipe_file(f"{bucket}/corpus/b.jsonl.zst", zstandard.compress(plain[1]))
    (tmp_path / "corpus").mkdir()
    for name, data in zip("ab", plain, strict=True):
        (tmp_path / "corpus" / f"{name}.jsonl").write_bytes(data)
    for output, path in (("there", f"{bucket}/corpus/*"), ("here", f"{tmp_path}/corpus/*")):
        build_token_store(
            tmp_path / output,
            corpus=[JsonLinesCorpus(kind="jsonl", path=path)],
            tokenizer=TrainedTokenizer(kind="trained", vocabulary=300),
            sequence_length=16,
            train_sequences=200,
            validation_sequences=10,
            seed=0,
            identity="id",
        )
    assert made.contents(tmp_path / "there") == made.contents(tmp_path / "here")
    for path in (tmp_path / "here").iterdir():
        files.pipe_file(f"{bucket}/tokens/{path.name}", path.read_bytes())
    return f"{bucket}/tokens", TokenStore.open(tmp_path / "here")


@pytest.mark.parametrize("cached", [False, True])
def test_tokens_on_s3(token_store, tmp_path, monkeypatch, cached):
    """Made of a corpus there, read by ranges ahead or from the cache, verified, and shown."""
    url, here = token_store
    if cached:
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "READ_AHEAD", 2000)
    requests = []
    real = remote.RemotePlace.read
    monkeypatch.setattr(remote.RemotePlace, "read", lambda self, *span: (requests.append(span), real(self, *span))[1])
    expected = here.split("train").get_batch(range(200))
    for epoch in range(2):
        requests.clear()
        for ours, theirs in zip(TokenStore.open(url).split("train").get_batch(range(200)), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert len(requests) < 40
        assert not (cached and epoch and requests)
    assert verify(url) == []
    if not cached:
        assert pdforge(tmp_path, "verify", url).stdout.strip().endswith("whole")
        assert '"sequences": 200' in pdforge(tmp_path, "stats", url, "--json").stdout


def test_damaged_tokens_on_s3_are_named_and_dropped_connections_made_again(token_store, proxy, monkeypatch):
    import s3fs  # noqa: PLC0415 - may not be installed

    url, here = token_store
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01, 0.01, 0.01))
    before = proxy.dropped
    proxy.drops = 2
    np.testing.assert_array_equal(TokenStore.open(url).split("train").get(7)[0], here.split("train").get(7)[0])
    assert proxy.dropped > before
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    data = bytearray(files.cat_file(f"{url}/train-000000.bin"))
    data[30] ^= 1
    files.pipe_file(f"{url}/train-000000.bin", bytes(data))
    assert [(damage.file, damage.block) for damage in verify(url)][:1] == [("train-000000.bin", 0)]
    with pytest.raises(StoreDamaged, match=r"train-000000\.bin, block 0"):
        TokenStore.open(url).split("train").get(0)
    files.rm(f"{url}/train-000000.bin")
    with pytest.raises(StoreMissing, match="no such file"):
        TokenStore.open(url).split("train").get(0)
