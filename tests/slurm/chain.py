"""Light stages whose results depend on every step: a chain of hashes for training stages, one hash a shard for others.

They keep the protocol of the real ones: all ranks agree at every step whether to stop, a checkpoint is whole or absent,
`metrics.jsonl` has a row for each step, shards are made alone, by several ranks or by the tasks of an array, and
`done.json` is written last. The environment variable CHAIN holds options, JSON: `steps`, `shards`, `delay` of a step
or shard in seconds, `every` so many steps a checkpoint, `hold`: a step at which trainings wait until a file is there.
Every step and shard that is computed is noted in `output/computed`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from pdforge import heartbeat
from pdforge.errors import ExitCode
from pdforge.layout import StageDirectory, read_json, write_json
from pdforge.stages import stop
from pdforge.stages.entry import in_array

OPTIONS: dict[str, Any] = {"steps": 30, "shards": 6, "delay": 0.1, "every": 5, "hold": None}
TRAINING = ("pretrain-teacher", "train")


def options() -> dict[str, Any]:
    return OPTIONS | json.loads(os.environ.get("CHAIN", "{}"))


def link(digest: str, step: int) -> str:
    """The state after a step."""
    return hashlib.sha256(f"{digest}/{step}".encode()).hexdigest()


def rows(steps: int) -> list[dict[str, Any]]:
    """`metrics.jsonl` of an undisturbed chain."""
    found, digest = [], ""
    for step in range(1, steps + 1):
        digest = link(digest, step)
        found.append({"step": step, "digest": digest})
    return found


def read_rows(stage: StageDirectory) -> list[dict[str, Any]]:
    """`metrics.jsonl` as it is."""
    return [json.loads(line) for line in stage.metrics.read_text().splitlines()]


def shard(output: Path, number: int) -> Path:
    return output / f"shard-{number:03d}.json"


def computed(stage: StageDirectory) -> list[int]:
    """What was computed, in order, with what was computed again."""
    file = stage.output / "computed"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def main(path: Path) -> int:
    stage, rank, ranks = StageDirectory(path), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if stage.done.exists():
        return ExitCode.OK
    stage.output.mkdir(parents=True, exist_ok=True)
    if read_json(stage.job_json)["kind"] in TRAINING:
        return _chain(stage, rank, ranks)
    return _shards(stage, rank, ranks)


def _chain(stage: StageDirectory, rank: int, ranks: int) -> int:
    what, checkpoint = options(), stage.output / "checkpoint.json"
    saved = read_json(checkpoint) or {"step": 0, "digest": ""}
    step, digest = saved["step"], saved["digest"]
    if rank == 0:
        kept = stage.metrics.read_text().splitlines(keepends=True)[:step] if stage.metrics.exists() else []
        stage.metrics.write_text("".join(kept))
    together = _Together(stage, rank, ranks)
    while not (stopped := together.agree(stop.requested())) and step < what["steps"]:
        if what["hold"] and step >= what["hold"][0] and not together.agree(Path(what["hold"][1]).exists()):
            time.sleep(what["delay"])
            continue
        step += 1
        digest = link(digest, step)
        heartbeat.beat(step)
        time.sleep(what["delay"])
        if rank == 0:
            _note(stage, step)
            with stage.metrics.open("a") as file:
                file.write(json.dumps({"step": step, "digest": digest}) + "\n")
            _report(stage, step, what["steps"], "steps")
            if step % what["every"] == 0:
                write_json(checkpoint, {"step": step, "digest": digest})
    if rank == 0:
        write_json(checkpoint, {"step": step, "digest": digest})
    together.agree(False)  # nobody leaves before it is saved: the first that leaves ends the others
    if stopped:
        return ExitCode.STOPPED
    if rank == 0:
        write_json(stage.done, {"results": {"heldout_loss": 2.5, "digest": digest}})
    return ExitCode.OK


class _Together:
    """An all-reduce over files. A rank is at most one call ahead of its peers, so two files a rank are enough."""

    def __init__(self, stage: StageDirectory, rank: int, ranks: int) -> None:
        self._output, self._rank, self._ranks, self._call = stage.output, rank, range(ranks), 0
        self._start = f"{os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_RESTART_COUNT')}"

    def agree(self, wish: bool) -> bool:
        """Whether any rank wishes it."""
        self._call += 1
        write_json(self._file(self._rank), {"start": self._start, "call": self._call, "wish": wish})
        answers = [self._answer(peer) for peer in self._ranks]  # of everybody, also where the first one decides
        return any(answers)

    def _file(self, rank: int) -> Path:
        return self._output / f"agree{rank}.{self._call % 2}.json"

    def _answer(self, peer: int) -> bool:
        """Waits for it without end: that a peer is gone is for others to notice."""
        while True:
            said = read_json(self._file(peer)) or {}
            if (said.get("start"), said.get("call")) == (self._start, self._call):
                return bool(said["wish"])
            time.sleep(0.02)


def _shards(stage: StageDirectory, rank: int, ranks: int) -> int:
    what = options()
    numbers = range(what["shards"])

    def missing() -> list[int]:
        return [number for number in numbers if not shard(stage.output, number).exists()]

    for number in missing():
        if number % ranks != rank:
            continue
        if stop.requested():
            return ExitCode.STOPPED
        time.sleep(what["delay"])
        _note(stage, number)
        write_json(shard(stage.output, number), {"digest": link("", number)})
        if rank == 0 or in_array():
            _report(stage, what["shards"] - len(missing()), what["shards"], "sequences")
    if rank or in_array():
        return ExitCode.OK
    while missing():
        if stop.requested():
            return ExitCode.STOPPED
        time.sleep(0.1)
    write_json(stage.done, {"results": {"shards": len(numbers)}})
    return ExitCode.OK


def _note(stage: StageDirectory, number: int) -> None:
    with (stage.output / "computed").open("a") as file:
        file.write(f"{number}\n")


def _report(stage: StageDirectory, step: int, of: int, unit: str) -> None:
    row = {"stage": stage.path.name, "step": step, "of": of, "unit": unit, "loss": None, "tokens_per_second": None}
    write_json(stage.progress, {**row, "eta_seconds": 1.0, "message": "", "time": time.time()})
