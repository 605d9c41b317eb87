"""A stage for tests that keeps the protocol of real ones: counts, checkpoints, can be stopped, writes `done.json` last.

What it does is said by the environment variable COUNTER, JSON: {part of the stage directory's path: options}. A test
that needs a stage to be at work while something happens says `hold`, a step and a file: at that step the counter waits
until the file is there. With `seen` a rank fails only once every rank has told of a step.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from pdforge import evidence, heartbeat
from pdforge.errors import EnvironmentFault, ExitCode
from pdforge.launch import task
from pdforge.launch.hang import read_sign
from pdforge.layout import StageDirectory, read_json, write_json
from pdforge.stages import stop

DEFAULTS = {
    "steps": 4,
    "delay": 0.02,
    "fail_rank": None,
    "fail_at": 0,
    "how": "raise",
    "helper": False,
    "linger": False,
    "every": 1,
    "together": False,
    "shows": (),
    "hold": None,
    "seen": False,
}


def options(path: Path) -> dict:
    table = json.loads(os.environ.get("COUNTER", "{}"))
    return DEFAULTS | next((value for part, value in table.items() if part in str(path)), {})


def main(path: Path) -> int:
    stage, what, rank = StageDirectory(path), options(path), int(os.environ["RANK"])
    if "SLURM_JOB_ID" not in os.environ:
        assert (os.environ["MASTER_ADDR"], os.environ["LOCAL_RANK"]) == ("127.0.0.1", os.environ["RANK"])
        assert os.environ["WORLD_SIZE"] == os.environ["LOCAL_WORLD_SIZE"]
    assert int(os.environ["MASTER_PORT"])
    stage.output.mkdir(parents=True, exist_ok=True)
    if what["helper"]:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "pdforge-test-helper"])
    checkpoint = stage.output / f"count{rank}.json"
    step = read_json(checkpoint) or 0
    if rank == 0:
        with (stage.output / "starts").open("a") as file:
            file.write(f"{step}\n")
    if what["shows"]:
        print(*(os.environ.get(name) for name in what["shows"]))
    print(f"rank {rank} counts from {step}")
    evidence.on_hang(tell)
    while step < what["steps"]:
        if stop.requested():
            write_json(checkpoint, step)
            return ExitCode.STOPPED
        if is_held(what["hold"], step):
            time.sleep(0.02)
            continue
        step += 1
        heartbeat.beat(step)
        if rank == what["fail_rank"] and step == what["fail_at"]:
            while what["seen"] and not all_seen(stage):
                time.sleep(0.02)
            fail(what["how"])
        time.sleep(what["delay"])
        if what["together"]:
            wait_for_peers(stage, rank, step)
        if step % what["every"] == 0:
            write_json(checkpoint, step)
        if rank == 0:
            write_json(
                stage.progress,
                {"stage": "tokenize", "step": step, "of": what["steps"], "unit": "steps", "loss": 2.5 / step,
                 "tokens_per_second": 100.0, "eta_seconds": 1.0, "message": "", "time": time.time()},
            )  # fmt: skip
    if what["linger"]:
        task.EXIT_TIMEOUT_S = 1
        threading.Thread(target=time.sleep, args=(3600,)).start()
    if rank == 0 and what["how"] != "no result":
        write_json(stage.done, {"results": {"heldout_loss": 2.5}})
    return ExitCode.OK


def is_held(hold: tuple[int, str] | None, step: int) -> bool:
    """Whether a stage that has done a step has to wait there."""
    return hold is not None and step >= hold[0] and not Path(hold[1]).exists()


def tell(folder: Path) -> str:
    """What a trainer would say of its collectives."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"rank_{os.environ['RANK']}").write_bytes(b"0" * (1 << 21))
    return f"the counter is at step {heartbeat.step()}"


def wait_for_peers(stage: StageDirectory, rank: int, step: int) -> None:
    """Like a collective: nobody goes on before everybody is there, or wants to stop."""
    (stage.output / f"at{rank}").write_text(str(step))
    for peer in range(int(os.environ["WORLD_SIZE"])):
        file = stage.output / f"at{peer}"
        while not stop.requested() and int((file.exists() and file.read_text()) or 0) < step:
            time.sleep(0.02)


def all_seen(stage: StageDirectory) -> bool:
    """Whether the last sign of life of every rank tells of a step."""
    signs = (read_sign(stage.all_attempts()[-1], rank) for rank in range(int(os.environ["WORLD_SIZE"])))
    return all(sign and sign.step for sign in signs)


def fail(how: str) -> None:
    if how == "raise":
        raise RuntimeError("the counter broke")
    if how == "fault":
        raise EnvironmentFault("no such device", remedy="buy one")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        sys.exit(3)
    if how == "crash":
        signal.raise_signal(signal.SIGSEGV)
    if how == "hang":
        time.sleep(3600)
