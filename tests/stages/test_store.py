"""Waiting for the shards of other ranks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pdforge.launch.hang import HangDetector
from pdforge.launch.progress import read_progress
from pdforge.layout import StageDirectory
from pdforge.stages import stop, store
from pdforge.store.writer import LogitWriter
from tests.store import made


def test_only_a_new_shard_is_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_POLL_S", 0.01)
    monkeypatch.setattr(stop, "_requested", threading.Event())
    stage, looks = StageDirectory(tmp_path), []
    stage.attempt(1).path.mkdir(parents=True)
    held = made.spec()
    writer = LogitWriter(stage.output, held)
    detector = HangDetector(stage.attempt(1), 0, 2, limit=60)

    class Writer(LogitWriter):
        """Whose third and fifth look find one more shard."""

        def missing_shards(self) -> list[int]:
            looks.append(detector._read_progress())
            if len(looks) in (3, 5):
                shard = super().missing_shards()[0]
                writer.write_shard(shard, made.blocks_of(held, shard))
            if len(looks) == 8:
                stop.request()
            return super().missing_shards()

    assert not store.all_written(Writer(stage.output, held), store.CaptureProgress(stage, held))
    first, second, third = looks[1], looks[3], looks[5]
    assert looks == [None, first, first, second, second, third, third, third]
    assert len({first, second, third}) == 3
    found = read_progress(stage)
    assert found is not None
    assert (found.step, found.of) == (6, 10)
