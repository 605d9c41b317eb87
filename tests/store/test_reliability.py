"""Stores whose writers are killed, whose disk is full, whose rights are lost, and files that are not what they should.

`PDFORGE_KILLS=200 pytest tests/store/test_reliability.py` kills each writer at 200 random moments.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pdforge.errors import StoreError, StoreMismatch, StoreMissing
from pdforge.store.inspect import open_store, verify
from pdforge.store.logits import LogitWriter
from tests.store import made

KILLS = int(os.environ.get("PDFORGE_KILLS", "20"))

_WRITERS = """
import json, os, random, resource, shutil, signal, sys, tempfile, time, traceback
from pathlib import Path
from pdforge.errors import PdforgeError, StoreMissing
from pdforge.recipe.models import JsonLinesCorpus, StandardLibraryCorpus, TrainedTokenizer
from pdforge.store import encoded, pack
from pdforge.store.files import Folder
from pdforge.store.logits import LogitWriter
from pdforge.store.shards import ShardReader
from pdforge.store.tokenize import build_token_store
from tests.store import made

encoded.PART_BYTES, pack.SHARD_SEQUENCES = 50_000, 20
held = made.spec(sequences=240, shard_sequences=4)
blocks = [made.blocks_of(held, shard) for shard in range(held.shards)]

def logits(path):
    writer = LogitWriter(path, held)
    for shard in writer.missing_shards():
        writer.write_shard(shard, blocks[shard])
    writer.finish({})

corpus = [StandardLibraryCorpus(kind="python-stdlib", bytes=300_000)]

def tokens(path):
    build_token_store(path, corpus=corpus,
        tokenizer=TrainedTokenizer(kind="trained", vocabulary=300), sequence_length=64, train_sequences=600,
        validation_sequences=40, seed=0, identity="id")

write = {"logits": logits, "tokens": tokens}[sys.argv[1]]

def forked(work):
    "Run in a child, which needs no imports; its process id."
    child = os.fork()
    if child == 0:
        try:
            work()
        except PdforgeError as error:
            print(type(error).__name__, error, flush=True)
            os._exit(3)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def check(path):
    "What has a name is whole."
    for file in path.glob("*-*.bin"):
        reader = ShardReader(Folder(path).file(file.name))
        for number in range(len(reader)):
            reader.block(number)
"""

_KILLED = (
    _WRITERS
    + """
path, whole, kills = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
start = time.monotonic()
assert ended(forked(lambda: write(whole))) == 0
span, rng, died, begun = time.monotonic() - start, random.Random(0), 0, 0
while died < kills:
    if (path / "manifest.json").exists():
        shutil.rmtree(path)
        begun += 1
    child = forked(lambda: write(path))
    time.sleep(rng.random() * span)
    os.kill(child, signal.SIGKILL)
    died += ended(child) == -signal.SIGKILL
    check(path)
assert ended(forked(lambda: write(path))) == 0
print(died)
"""
)

_DISK_FULL = (
    _WRITERS
    + """
path = Path(sys.argv[2])
def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
    write(path)
code = ended(forked(limited if sys.argv[3] != "-" else lambda: write(path)))
check(path)
sys.exit(code)
"""
)

_NO_RIGHTS = (
    _WRITERS
    + """
with tempfile.TemporaryDirectory() as base:
    os.chmod(base, 0o755)
    path = Path(base) / "store"
    path.mkdir()
    source = Path(os.__file__).read_text()  # which who has no rights may not reach
    rows = [json.dumps({"text": source[n * 100 : n * 100 + 600]}) for n in range(300)]
    (Path(base) / "a.jsonl").write_text("\\n".join(rows))
    corpus = [JsonLinesCorpus(kind="jsonl", path=f"{base}/a.jsonl")]
    if sys.argv[1] == "tokens":  # imports what the child may not
        tokens(Path(base) / "first")
    def dropped():
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        write(path)
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)
    assert ended(forked(dropped)) == 0
    first = sorted(path.glob("*-*.bin"))[0]
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    first.unlink()
    (path / "manifest.json").unlink()
    path.chmod(0o555)
    assert ended(forked(dropped)) == 3
    check(path)
    path.chmod(0o755)
    assert ended(forked(dropped)) == 0
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
"""
)


def run(script, *arguments, timeout=500):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(params=["logits", "tokens"])
def kind(request):
    if request.param == "tokens":
        pytest.importorskip("tokenizers")
    return request.param


def test_writers_killed_at_random_moments(tmp_path, kind):
    result = run(_KILLED, kind, tmp_path / "killed", tmp_path / "whole", KILLS)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[-1]) == KILLS
    assert made.contents(tmp_path / "killed") == made.contents(tmp_path / "whole")
    assert verify(tmp_path / "killed") == []


def test_files_that_cannot_grow(tmp_path, kind):
    path = tmp_path / "store"
    result = run(_DISK_FULL, kind, path, 1000)
    assert (result.returncode, "StoreError" in result.stdout) == (3, True), result.stderr
    assert "cannot be written: File too large" in result.stdout
    assert run(_DISK_FULL, kind, path, "-").returncode == 0
    assert run(_DISK_FULL, kind, tmp_path / "whole", "-").returncode == 0
    assert made.contents(path) == made.contents(tmp_path / "whole")


def test_a_full_disk(tmp_path, kind):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        result = run(_DISK_FULL, kind, small / "store", "-")
        assert (result.returncode, "StoreError" in result.stdout) == (3, True), result.stderr
        assert "cannot be written: No space left on device" in result.stdout
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert run(_DISK_FULL, kind, small / "store", "-").returncode == 0
        assert run(_DISK_FULL, kind, tmp_path / "whole", "-").returncode == 0
        assert made.contents(small / "store") == made.contents(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_rights_that_are_lost(kind):
    result = run(_NO_RIGHTS, kind)
    assert result.returncode == 0, result.stderr
    assert "Permission denied" in result.stdout
    assert "check free space and rights" in result.stdout


@pytest.mark.parametrize("name", ["manifest.json", "ranks.bin", "shard-000001.bin"])
@pytest.mark.parametrize(
    "bend",
    [
        lambda data: b"",
        lambda data: data[:1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"PK\x03\x04" + bytes(500),
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "one byte", "half", "a byte short", "a byte long", "a zip file", "zeros"],
)
def test_cut_empty_and_foreign_files_are_named(tmp_path, name, bend):
    made.store(tmp_path / "s")
    (tmp_path / "s" / name).write_bytes(bend((tmp_path / "s" / name).read_bytes()))
    try:
        found = {damage.file for damage in verify(tmp_path / "s")}
    except StoreError as error:
        found = {part for part in (name,) if part in error.message}
    assert found == {name}


def test_files_of_a_later_version(tmp_path, monkeypatch):
    from pdforge.store import manifest, shards  # noqa: PLC0415 - changed only here

    for module in (manifest, shards):
        with monkeypatch.context() as later:
            later.setattr(module, "VERSION", 99)
            made.store(tmp_path / module.__name__)
        with pytest.raises(StoreMismatch, match="99") as caught:
            open_store(tmp_path / module.__name__)
        assert "update pdforge" in caught.value.remedy


def test_damaged_shards_of_an_unfinished_store_are_written_again(tmp_path):
    held = made.spec()
    made.store(tmp_path / "s", held)
    before = made.contents(tmp_path / "s")
    (tmp_path / "s" / "manifest.json").unlink()
    for name in ("shard-000000.bin", "shard-000002.bin"):
        (tmp_path / "s" / name).write_bytes(before[name][:-40])
    writer = LogitWriter(tmp_path / "s", held)
    assert writer.missing_shards() == []
    with pytest.raises(StoreMissing, match=r"2 of 3 shards .* set aside: shard-000000.bin, shard-000002.bin \(its end"):
        writer.finish({})
    assert writer.missing_shards() == [0, 2]
    made.store(tmp_path / "s", held)
    after = {name: data for name, data in made.contents(tmp_path / "s").items() if not name.endswith(".damaged")}
    assert after == before
