"""Writing in the background: the same store, bounded memory, and no error lost."""

from __future__ import annotations

import threading

import pytest

from pdforge.errors import StoreError
from pdforge.store.background import BackgroundWriter
from pdforge.store.logits import LogitWriter
from tests.store import made

HELD = made.spec(sequences=40)


class Gate(LogitWriter):
    """Waits for leave before each shard."""

    def __init__(self, path):
        super().__init__(path, HELD)
        self.leave = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def write_shard(self, index, blocks):
        self.entered.release()
        assert self.leave.acquire(timeout=30)
        super().write_shard(index, blocks)


def test_the_store_is_the_same(tmp_path):
    writer = LogitWriter(tmp_path / "background", HELD)
    with BackgroundWriter(writer) as background:
        for shard in writer.missing_shards():
            background.write_shard(shard, made.blocks_of(HELD, shard))
    assert writer.missing_shards() == []
    writer.finish({"held_out_loss": 2.5})
    made.store(tmp_path / "plain", HELD)
    assert made.contents(tmp_path / "background") == made.contents(tmp_path / "plain")


def test_the_caller_goes_on_while_a_shard_is_written_and_waits_when_too_many_are(tmp_path):
    gate = Gate(tmp_path / "s")
    handed = []
    third = threading.Event()

    def teacher():
        with BackgroundWriter(gate) as background:
            for shard in range(4):
                background.write_shard(shard, made.blocks_of(HELD, shard))
                handed.append(shard)
                if shard == 2:
                    third.set()

    thread = threading.Thread(target=teacher)
    thread.start()
    assert gate.entered.acquire(timeout=30)
    assert not third.wait(0.2)  # two are on their way; the third waits for the first
    assert gate.missing_shards() == list(range(10))
    gate.leave.release()
    assert third.wait(30)
    for _ in range(3):
        gate.leave.release()
    thread.join(30)
    assert handed == [0, 1, 2, 3]
    assert gate.missing_shards() == list(range(4, 10))


def _write(writer, shards, then=None):
    with BackgroundWriter(writer) as background:
        for shard, blocks in shards:
            background.write_shard(shard, blocks)
        if then:
            raise then


def test_an_error_comes_out_and_what_waits_is_dropped(tmp_path):
    writer = LogitWriter(tmp_path / "s", HELD)
    good = made.blocks_of(HELD, 0)
    shards = [(0, good), (1, good[:3]), *((shard, good) for shard in range(2, 10))]
    with pytest.raises(StoreError, match="shard 1 with 3"):
        _write(writer, shards)
    assert 0 not in writer.missing_shards()
    assert set(range(5, 10)) <= set(writer.missing_shards())


def test_an_error_of_the_last_shard_comes_out_on_leaving(tmp_path):
    with pytest.raises(StoreError, match="shard 9"):
        _write(LogitWriter(tmp_path / "s", HELD), [(9, [])])


def test_the_teachers_own_error_wins_and_leaves_no_thread(tmp_path):
    with pytest.raises(ZeroDivisionError):
        _write(LogitWriter(tmp_path / "s", HELD), [(0, [])], ZeroDivisionError())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shards")]
