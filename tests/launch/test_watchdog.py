"""The thread beside a rank, while the file system that it looks at fails for a moment."""

from __future__ import annotations

import os
import threading
import time

from conftest import wait_for

from pdforge.launch import hang, watchdog
from pdforge.launch.process import ProcessId
from pdforge.launch.records import RankError, RankRecord, write_rank
from pdforge.launch.watchdog import Watchdog
from pdforge.layout import StageDirectory


def point(path, target):
    """Make `path` a link to another file of the folder above its own, at one moment."""
    link = path.with_name("link")
    link.symlink_to(f"../{target}")
    link.replace(path)


def test_it_outlives_a_fault_of_the_file_system(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watchdog, "PERIOD_S", 0.01)
    monkeypatch.setattr(watchdog, "START_TIMEOUT_S", 0.0)
    monkeypatch.setattr(hang, "BEAT_S", 0.02)
    attempt = StageDirectory(tmp_path).attempt(1)
    attempt.stage.attempts.mkdir()
    (tmp_path / "well").mkdir()
    (tmp_path / "broken").touch()  # nothing can be read or written below a file
    point(attempt.path, "well")
    peer = RankRecord(rank=1, process=ProcessId.of(os.getpid()), state="running", started=time.time())
    write_rank(attempt, peer)
    stop, failures = threading.Event(), list[RankError]()
    thread = Watchdog(attempt, 0, 2, stalls_after=600, on_stop=stop.set, on_failure=failures.append)
    thread.start()
    assert wait_for(attempt.sign(0).exists)

    point(attempt.path, "broken")
    time.sleep(0.5)
    point(attempt.path, "well")

    attempt.stop.touch()
    assert wait_for(stop.is_set, 20), "it hears a request to stop"
    assert not failures, "a record that cannot be read is no peer that never began"
    assert capsys.readouterr().err.count("the watchdog goes on after FileExistsError") == 1
    write_rank(attempt, peer.model_copy(update={"state": "failed"}))
    assert wait_for(lambda: failures, 20), "it notices a peer that failed"
    assert failures[0].message == "rank 1 failed"
