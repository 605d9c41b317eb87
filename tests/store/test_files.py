"""Files and folders get their names when what they hold is durable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pdforge.store.files import publish_folder


def test_a_folder_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial, final = tmp_path / ".model", tmp_path / "model"
    for folder in (partial / "more", final):
        folder.mkdir(parents=True)
    for file in (partial / "weights", partial / "more" / "shard", final / "old"):
        file.write_text(file.name)
    before, synced, fsync = {path.stat().st_ino for path in (*partial.rglob("*"), partial)}, [], os.fsync

    def observed(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, partial.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    publish_folder(partial, final)
    assert {inode for inode, unnamed in synced if unnamed} == before
    assert [inode for inode, unnamed in synced if not unnamed] == [tmp_path.stat().st_ino]
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {"model", "model/weights", "model/more", "model/more/shard"}
