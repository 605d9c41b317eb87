"""One real run of everything, at a size for tests; the tests look at what it left, or repeat parts of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pdforge.layout import StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.model import Plan, Stage, StageKind
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes

TINY = Path(__file__).parents[1] / "tiny.yaml"
TINY_FULL = TINY.with_name("tiny_full.yaml")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "COLUMNS": "100"}


def pdforge(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command line, as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "pdforge", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert not check or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def torchrun(
    processes: int, module: str, *arguments: str | Path, cwd: Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """A module under torchrun, as somebody would start it by hand."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*launcher, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=cwd,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr[-4000:]
    return done


def run_and_kill(command: Sequence[str | Path], directory: StageDirectory, when: Callable[[int], bool]) -> None:
    """Run `pdforge` with SIGKILL to it and to the stage's ranks as soon as `when` holds of the stage's last step."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "pdforge", *map(str, command)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 500
    while not when(json.loads(directory.progress.read_text())["step"] if directory.progress.exists() else 0):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(driver.pid, signal.SIGKILL)
    for record in directory.path.glob("attempts/*/rank*.json"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(json.loads(record.read_text())["process"]["pid"]), signal.SIGKILL)
    driver.wait()
    assert not directory.done.exists()


@dataclass(frozen=True)
class TinyRun:
    """What `pdforge run tests/tiny.yaml` left."""

    root: Path
    plans: dict[str, Plan]
    output: str

    def stage(self, variant: str, kind: StageKind) -> StageDirectory:
        stage = self.plans[variant].stage(kind)
        assert isinstance(stage, Stage)
        return StageDirectory(self.root / stage.directory)


def plans_of(root: Path, processes: int = 2, recipe: Path = TINY) -> dict[str, Plan]:
    plans = make_plans(load_recipes(str(recipe)), local_profile(processes), root)
    return {plan.label: plan for plan in plans}


def rows(directory: StageDirectory) -> list[dict[str, Any]]:
    """`metrics.jsonl` without what depends on the clock."""
    parsed = [json.loads(line) for line in directory.metrics.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in parsed]


def steps(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of training steps, without those of held-out measurements."""
    return [row for row in found if "loss" in row]


def results(directory: StageDirectory) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(directory.done.read_text())["results"]
    return found


def run_once(
    factory: pytest.TempPathFactory, recipe: Path, *options: str, stores: Path | None = None
) -> tuple[Path, str]:
    """`pdforge run` of a recipe on two processes, by whichever of pytest's workers comes first.

    Args:
        factory: of the worker.
        recipe: it.
        options: more of the command.
        stores: a root of which the run has tokens, teachers and logits already.

    Returns:
        A copy of its storage root for this worker alone, and what the run printed.
    """
    base = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    made, printed = base / recipe.stem, base / f"{recipe.stem}.txt"
    with FileLock(base / f"{recipe.stem}.lock"):
        if not printed.exists():
            shutil.rmtree(made, ignore_errors=True)  # of a worker whose run failed
            for part in ("tokens", "teachers", "logits") if stores else ():
                shutil.copytree(stores / part, made / part)
            output = pdforge("run", recipe, *options, "--root", made, "--processes", "2").stdout
            printed.write_text(output, encoding="utf-8")
    root = factory.mktemp(recipe.stem) / "runs"
    shutil.copytree(made, root)
    return root, printed.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    root, output = run_once(tmp_path_factory, TINY)
    return TinyRun(root, plans_of(root), output)


@pytest.fixture(scope="session")
def full(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The same with everything that may become of a student; one variant."""
    root, output = run_once(tmp_path_factory, TINY_FULL, "--variant", "pd", stores=tiny.root)
    return TinyRun(root, plans_of(root, recipe=TINY_FULL), output)
