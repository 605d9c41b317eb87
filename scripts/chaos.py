"""Random faults in a row, done to runs on a real SLURM of two nodes: is a run lost, a file damaged, a result other?

    make chaos FAULTS=50 SEED=1

Starts a cluster of its own (Debian's SLURM, root). Runs of the tiny recipe suffer faults drawn from the seed, one
after another, each at a drawn stage and place: some with light stages (a chain of hashes), some with the real ones,
which are compared with a run on this machine that nothing disturbed. A fault counts as recovered when the run has got
further than it was, and as lost when it has not within twenty minutes or the run did not end well. The tally goes to
standard output, also after Ctrl-C or TERM.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from pdforge.layout import StageDirectory, read_json
from tests.slurm.evidence import check_light, check_real
from tests.slurm.harness import Cluster, NoCluster, User, wait_for
from tests.slurm.inject import FAULTS, KINDS, OF_RANKS, living_ranks, running_jobs

LIGHT = {"steps": 40, "shards": 30, "delay": 0.25, "every": 5}
REAL_SETTINGS = ("training.steps=39",)
SLOWER = {"teachers": {"delay": 0.4}, "train": {"delay": 0.4}}
"""Seconds that a step of a real stage takes longer, so that there is time to hit it."""
LIMIT_S = 1200.0
"""A run that has got no further for so long is lost."""
PROFILE = """\
restarts_without_progress: 10
capture_tasks: 2
watchdog: {{tokenize: {limit}, pretrain_teacher: {limit}, capture: {limit}, train: {limit}}}
"""


@dataclass
class Fault:
    """What is to be done, and what came of it."""

    kind: str
    stage: str
    """Kind of the stage that it is meant for; where that is over already, it hits the next."""
    place: float
    """Part of the stage that is done before; below a tenth: as soon as its job runs."""
    real: bool
    did: str = ""
    seconds: float | None = None
    """Until the run had got further than it was; None: never."""
    lost: bool = False


def draw(count: int, seed: int, real: float) -> list[list[Fault]]:
    """Faults by run: each run gets three to six, in the order in which it meets them."""
    chance, runs, left = random.Random(seed), list[list[Fault]](), count
    kinds: list[str] = []
    while left:
        size, is_real = min(left, chance.randint(3, 6)), chance.random() < real
        faults = []
        for _ in range(size):
            kinds = kinds or chance.sample(sorted(FAULTS), len(FAULTS))  # every kind once before any comes again
            kind = kinds.pop()
            stage = "capture" if "array" in kind else chance.choices(KINDS, (1, 4, 4, 8))[0]
            place = 0.0 if "array" in kind else chance.random() * 0.9
            faults.append(Fault(kind, stage, place, is_real))
        runs.append(sorted(faults, key=lambda fault: (KINDS.index(fault.stage), fault.place)))
        left -= size
    return runs


@dataclass
class Campaign:
    """Runs on one cluster, one after another."""

    cluster: Cluster
    folder: Path
    seed: int
    undisturbed: Path | None = None
    """Storage root of a real run on this machine."""
    problems: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    """How much was compared, by what it is."""

    def run(self, number: int, faults: list[Fault]) -> list[Fault]:
        """One run with its faults; what was lost or differs is noted. The faults that it ended too early for."""
        user = self._submit(number, real=faults[0].real)
        chance, left = random.Random(self.seed * 1000 + number), list(faults)
        try:
            while left and self._inject(user, left[0], chance):
                left.pop(0)
            if not wait_for(lambda: not user.queue(), LIMIT_S):
                raise AssertionError("it does not end")
            found = check_real(user, self._baseline()) if faults[0].real else check_light(user, LIGHT)
        except (AssertionError, subprocess.TimeoutExpired, IndexError) as error:
            last = [fault for fault in faults if fault.did][-1:] or faults[:1]
            last[0].lost = True
            self.problems.append(f"run {number}: {error}\n{user.describe()}")
            if queued := user.queue():
                self.cluster("scancel", *queued)
            return [fault for fault in left if not fault.did]
        for what, count in found.items():
            self.counted[what] = self.counted.get(what, 0) + count
        shutil.rmtree(user.folder)
        return left

    def _submit(self, number: int, *, real: bool) -> User:
        folder = self.folder / f"run{number}"
        folder.mkdir()
        user = User(folder, self.cluster)
        limit, memory = ("180s", "1500MiB") if real else ("20s", "300MiB")
        user.profile(PROFILE.format(limit=limit), partition="low", memory=memory)
        user.environment["PDFORGE_TEST_FAULT"] = json.dumps(SLOWER if real else {})
        if real:
            self._baseline()
            user.real(*REAL_SETTINGS)
        else:
            user.tiny()
            user.chain(**LIGHT)
        user.submit()
        return user

    def _baseline(self) -> Path:
        if self.undisturbed is None:
            folder = self.folder / "undisturbed"
            folder.mkdir()
            user = User(folder, self.cluster)
            user.real(*REAL_SETTINGS)
            user.pdforge("run", user.recipe, *user.chosen, "--processes", "2", "--root", str(user.root), seconds=1800)
            self.undisturbed = user.root
        return self.undisturbed

    def _inject(self, user: User, fault: Fault, chance: random.Random) -> bool:
        """Do it, and wait until the run has got further; False: the run was over before."""
        stage = wait_for_place(user, fault)
        if stage is None:
            return False
        before, starts, began = reached(user), count_starts(user), time.monotonic()
        fault.did = FAULTS[fault.kind](user, stage, chance)

        def further() -> bool:
            again = fault.kind == "controller restarts" or count_starts(user) > starts or reached(user)[0] > before[0]
            return again and reached(user) > before

        if wait_for(further, LIMIT_S):
            fault.seconds = time.monotonic() - began
        say(user.folder.name, fault)
        if fault.seconds is None:
            raise AssertionError(f"no further than {before} since {fault.kind} ({fault.did})")
        return True


def wait_for_place(user: User, fault: Fault) -> str | None:
    """Wait until the fault's stage, or a later one, is where it is meant to be hit; its kind. None: the run is over."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if kind := next((kind for kind in KINDS if not user.stage(kind).done.exists()), None):
            meant = kind == fault.stage and (fault.place < 0.1 or fraction(user.stage(kind)) >= fault.place)
            if (meant or KINDS.index(kind) > KINDS.index(fault.stage)) and can_hit(user, fault, kind):
                fault.stage = kind
                return kind
        elif not user.queue():
            return None
        time.sleep(0.1)
    raise AssertionError(f"it never was where {fault.kind} could be tried")


def can_hit(user: User, fault: Fault, kind: str) -> bool:
    """Whether there is something for the fault."""
    if fault.kind in OF_RANKS:
        return bool(living_ranks(user, kind))
    jobs = running_jobs(user)
    return any("_" in job for job in jobs) if "array" in fault.kind else bool(jobs)


def fraction(stage: StageDirectory) -> float:
    """How much of a stage is done."""
    progress = read_json(stage.progress)
    return progress["step"] / progress["of"] if progress else 0.0


def reached(user: User) -> tuple[int, float]:
    """How far a run is: stages that are done, and the part of the next."""
    done = sum(user.stage(kind).done.exists() for kind in KINDS)
    return done, fraction(user.stage(KINDS[done])) if done < len(KINDS) else 0.0


def count_starts(user: User) -> int:
    return sum(len(user.stage(kind).all_attempts()) for kind in KINDS)


def say(run: str, fault: Fault) -> None:
    """To standard error, as it happens."""
    what = "real" if fault.real else "light"
    came = "not recovered" if fault.seconds is None else f"recovered in {fault.seconds:.1f} s"
    print(f"{run} ({what}), {fault.stage}: {fault.kind} ({fault.did}): {came}", file=sys.stderr, flush=True)


def table(faults: list[Fault]) -> Iterator[dict[str, Any]]:
    """The tally by kind of fault."""
    for kind in FAULTS:
        mine = [fault for fault in faults if fault.kind == kind]
        seconds = [fault.seconds for fault in mine if fault.seconds is not None]
        yield {
            "fault": kind,
            "injected": sum(bool(fault.did) for fault in mine),
            "of them real": sum(bool(fault.did) and fault.real for fault in mine),
            "recovered": len(seconds),
            "lost": sum(fault.lost for fault in mine),
            "median seconds": round(statistics.median(seconds), 1) if seconds else None,
            "most seconds": round(max(seconds), 1) if seconds else None,
        }


def tell(options: argparse.Namespace, faults: list[Fault], campaign: Campaign, runs: int, seconds: float) -> None:
    """Print the tally, and what went wrong."""
    rows = list(table(faults))
    page = {
        "seed": options.seed,
        "proctrack": options.proctrack,
        "faults": sum(row["injected"] for row in rows),
        "runs": runs,
        "lost runs": len(campaign.problems),
        "compared": campaign.counted,
        "seconds": round(seconds),
        "by fault": rows,
    }
    if options.json:
        print(json.dumps(page, indent=1))
    else:
        print("| " + " | ".join(rows[0]) + " |")
        print("|---|" + "---:|" * (len(rows[0]) - 1))
        for row in rows:
            print("| " + " | ".join("" if cell is None else str(cell) for cell in row.values()) + " |")
        print(f"\n{page['faults']} faults in {runs} runs, {len(campaign.problems)} lost; seed {options.seed}")
        print("equal to the undisturbed: " + ", ".join(f"{count} {what}" for what, count in campaign.counted.items()))
    for problem in campaign.problems:
        print(problem, file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--real", type=float, default=0.25, metavar="PART", help="of the runs have real stages")
    parser.add_argument("--proctrack", choices=["linuxproc", "cgroup"], default="linuxproc")
    parser.add_argument("--folder", type=Path, help="where the runs go; kept where something went wrong")
    parser.add_argument("--json", action="store_true", help="print the tally as JSON")
    return parser.parse_args()


def main() -> int:
    options = parse()
    runs = draw(options.faults, options.seed, options.real)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="pdforge-chaos-", dir=options.folder))
    root = Path(tempfile.mkdtemp(prefix="pdforge-slurm-", dir="/tmp"))
    try:
        cluster = Cluster(root, "--proctrack", options.proctrack)
    except NoCluster as why:
        print(why, file=sys.stderr)
        return 3
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started this in the background
        signal.signal(number, signal.default_int_handler)
    campaign, began = Campaign(cluster, folder, options.seed), time.monotonic()
    try:
        queue, number = list(runs), 0
        while queue:
            number += 1
            if left := campaign.run(number, queue.pop(0)):
                queue.insert(0, left)
    except KeyboardInterrupt:
        print(f"stopped in run {number}", file=sys.stderr)
    finally:
        cluster.script("down")
        shutil.rmtree(root)
    if not campaign.problems:
        shutil.rmtree(folder)
    tell(options, [fault for faults in runs for fault in faults], campaign, number, time.monotonic() - began)
    return 1 if campaign.problems or queue else 0


if __name__ == "__main__":
    sys.exit(main())
