"""torch's flight recorder: a rank whose peer never comes says in which collective it waits, and leaves the record."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

PROGRAM = """\
import os, sys, threading, time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from pdforge import evidence
from pdforge.titan import flight
from pdforge.titan.trainer import DistillTrainer

class Config:
    class comm:
        trace_buf_size = 100
        save_traces_folder = "comm_traces"
        save_traces_file_prefix = "other"

folder = Path(sys.argv[1])
flight.keep(Config)
assert Config.comm.save_traces_folder == "comm_traces", "nobody collects"
evidence.collect_in(folder)
flight.keep(Config)
assert Config.comm.save_traces_folder == str(folder)
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
for _ in range(3):
    dist.all_reduce(torch.ones(7))
if dist.get_rank() == 1:
    time.sleep(60)
threading.Thread(target=lambda: dist.all_reduce(torch.ones(5)), daemon=True).start()
time.sleep(1)
print(evidence.gather(), flush=True)
os._exit(0)
"""


def test_the_collective_that_does_not_end_is_named(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo", "TORCH_FR_BUFFER_SIZE": "100", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tmp_path / "collectives"],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    )
    try:
        said = first.communicate(timeout=120)[0]
    finally:
        second.kill()
        second.communicate()
    assert "collective 4 of default_pg, gloo:all_reduce of [[5]], has not ended" in said
    assert str(tmp_path / "collectives" / "rank_0") in said
    record = pickle.loads((tmp_path / "collectives" / "rank_0").read_bytes())
    assert [entry["retired"] for entry in record["entries"]] == [True, True, True, False]
    assert record["entries"][-1]["frames"], "with the stack of the call"
