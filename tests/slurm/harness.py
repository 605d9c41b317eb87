"""A real SLURM of two nodes on this machine, and somebody who gives `pdforge` to it as a user does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdforge.layout import StageDirectory, read_json

HERE = Path(__file__).parent
TESTS = HERE.parent
SCRIPT = HERE / "cluster.sh"
CANNOT = 3
"""Exit code of `cluster.sh up` where the machine has not what the options need."""
TINY = str(TESTS / "tiny.yaml")

PROFILE = """\
two:
  executor: slurm
  nodes: 2
  cpus_per_node: 2
  memory: {memory}
  partition: {partition}
  environment: {{GLOO_SOCKET_IFNAME: lo}}
"""
RECIPE = """\
recipe: count
data:
  corpus: {{kind: text, path: {corpus}}}
  tokenizer: {{kind: trained, vocabulary: 512}}
  sequence_length: 64
  train_tokens: 8192
  validation_tokens: 512
student:
  architecture: {{family: llama3, hidden: 32, ffn: 64, layers: 1, heads: 2}}
objective: {{alpha: 0}}
training:
  batch: {{global: 8, micro: 4}}
  optimizer: {{learning_rate: 0.001}}
  precision: float32
"""


def missing() -> str:
    """Why there can be no cluster here; empty when there can."""
    if absent := [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name)]:
        return f"SLURM is not installed here: no {', '.join(absent)}"
    return "" if os.getuid() == 0 else "slurmd needs root"


def can_account() -> bool:
    """Whether the programs of accounting are there."""
    return all(shutil.which(name) for name in ("slurmdbd", "mariadbd", "sacctmgr"))


WAIT_S = 300.0
"""For what takes seconds on a machine that has nothing else to do."""


def wait_for(condition: Callable[[], object], seconds: float = WAIT_S) -> bool:
    """Whether it has come to hold."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


class NoCluster(Exception):
    """There can be no such cluster on this machine; says why."""


class Cluster:
    """A running cluster."""

    def __init__(self, root: Path, *options: str) -> None:
        """Start it below `root`, with options of `cluster.sh up`.

        Raises:
            NoCluster: this machine has not what it needs.
        """
        if why := missing():
            raise NoCluster(why)
        self.root = root
        if not can_account():
            options = (*options, "--no-accounting")
        conf = self.script("up", *options).removeprefix("export SLURM_CONF=").strip()
        self.environment = {"SLURM_CONF": conf}

    def script(self, *arguments: str) -> str:
        """Call `cluster.sh`."""
        done = subprocess.run(
            [SCRIPT, *arguments, "--root", self.root], capture_output=True, text=True, timeout=3 * WAIT_S, check=False
        )
        if done.returncode == CANNOT:
            raise NoCluster(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def __call__(self, *command: str) -> str:
        """Call one of SLURM's own commands."""
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **self.environment}, timeout=WAIT_S, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


class User:
    """Somebody in a folder with a recipe and a cluster profile `two`, whose stages are counters if nothing else."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.root = folder / "runs"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "PDFORGE"))},
            **cluster.environment,
            "PYTHONPATH": ":".join(map(str, (TESTS / "launch" / "site", TESTS / "launch", HERE, TESTS.parent))),
            "PDFORGE_TEST_ENTRY": "counter:main",
            "PDFORGE_ROOT": str(self.root),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "COLUMNS": "160",
            "OMP_NUM_THREADS": "1",
        }
        self.recipe = "count.yaml"
        self.chosen: tuple[str, ...] = ()
        """Options that choose the run among those of the recipe."""
        (folder / "corpus.txt").write_text("one document\n" * 2000)
        (folder / self.recipe).write_text(RECIPE.format(corpus=folder / "corpus.txt"))
        self.profile()

    def profile(self, more: str = "", partition: str = "main", memory: str = "1500MiB") -> None:
        """Write the profile, with further lines."""
        text = PROFILE.format(partition=partition, memory=memory) + "".join(f"  {line}\n" for line in more.splitlines())
        (self.folder / "clusters.yaml").write_text(text)

    def count(self, **options: dict[str, Any]) -> None:
        """`count(train={"steps": 9})`: what the counters of stages do whose directory has the word in it."""
        self.environment["COUNTER"] = json.dumps(options)

    def hold(self, step: int) -> tuple[int, str]:
        """For counters and chains: wait at that step until `go`."""
        return step, str(self.folder / "go")

    def go(self) -> None:
        """Let the stages go on that are held."""
        (self.folder / "go").touch()

    def chain(self, **options: Any) -> None:
        """Stages are chains of hashes: see `chain.py`."""
        self.environment |= {"PDFORGE_TEST_ENTRY": "chain:main", "CHAIN": json.dumps(options)}

    def tiny(self, *settings: str) -> None:
        """The tiny recipe, which has all kinds of stages, with `--set` of each setting."""
        self.recipe, self.chosen = TINY, ("--variant", "pd", *(one for text in settings for one in ("--set", text)))

    def real(self, *settings: str) -> None:
        """The tiny recipe with its real stages."""
        self.environment.pop("PDFORGE_TEST_ENTRY", None)
        self.tiny(*settings)

    def pdforge(self, *arguments: str, code: int = 0, seconds: float = WAIT_S) -> str:
        """Call a command."""
        done = subprocess.run(
            [sys.executable, "-m", "pdforge", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def submit(self) -> None:
        self.pdforge("submit", "--cluster", "two", self.recipe, *self.chosen)

    def postmortem(self, *options: str) -> str:
        """What `pdforge postmortem` prints of the one run, which may hold tracebacks of its ranks."""
        run = self.train.path.parent
        done = subprocess.run(
            [sys.executable, "-m", "pdforge", "postmortem", run.name, *options],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stages(self) -> dict[str, dict[str, Any]]:
        """What `status --json` says of each stage, by its kind."""
        runs = json.loads(self.pdforge("status", self.recipe, *self.chosen, "--cluster", "two", "--json"))["runs"]
        return {stage["key"].partition(":")[0]: stage for run in runs for stage in run["stages"]}

    def stage(self, kind: str) -> StageDirectory:
        """The directory of the stage of a kind, once it was submitted; of the newest run, where there are several."""
        plan = max(self.root.glob("*/plan.json"), key=lambda path: path.stat().st_mtime_ns)
        stages = json.loads(plan.read_text())["stages"]
        return StageDirectory(next(self.root / stage["directory"] for stage in stages if stage["kind"] == kind))

    @property
    def train(self) -> StageDirectory:
        """The stage directory of `train`, once it was submitted."""
        return self.stage("train")

    def job(self, kind: str = "train") -> str:
        """Id of the job that ends a stage."""
        return str(json.loads(sorted(self.stage(kind).submissions.glob("*.json"))[-1].read_text())["job"])

    def wait_for_step(self, step: int, seconds: float = WAIT_S, kind: str = "train") -> None:
        """Until a stage has done a step."""
        progress = self.stage(kind).progress
        assert wait_for(lambda: (read_json(progress) or {"step": 0})["step"] >= step, seconds), self.describe()

    def wait_for_end(self, seconds: float = 2 * WAIT_S) -> None:
        """Until none of this user's jobs is queued or runs."""
        assert wait_for(lambda: not self.queue(), seconds), self.describe()

    def queue(self) -> list[str]:
        """Ids of the jobs of this user's folder that are queued or run."""
        rows = self.cluster("squeue", "-h", "-o", "%A|%Z|%T").splitlines()
        return [row.split("|")[0] for row in rows if row.split("|")[1].startswith(str(self.folder))]

    def describe(self) -> str:
        """For messages of failed tests: the queue, and the end of every log."""
        logs = [*self.root.rglob("*_log.out"), *self.root.rglob("rank*.log")]
        parts = [self.cluster("squeue"), *(f"== {log}\n{log.read_text()[-1500:]}" for log in logs)]
        return "\n".join(parts)

    def processes(self) -> list[str]:
        """Processes of this folder's jobs on any node."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(self.folder).encode() in text and b"SLURM_JOB_ID" in text and state != "Z":
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found
