"""Kill a recipe's run once in each of its stages, at a random moment, and compare with an undisturbed run.

    python scripts/kill_each_stage.py recipes/quickstart.yaml --seed 1

SIGKILL goes to the whole process groups of the driver and of the ranks; then the same command is given again. Prints
the held-out losses and tasks of both runs, and ends with 0 when all results of every stage, every row of metrics and
every file of an exported model are the same bits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pdforge.layout import HUGGINGFACE, StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.model import Stage, merged_stages
from pdforge.plan.profile import local_profile
from pdforge.recipe.load import load_recipes

BEGIN_TIMEOUT_S = 3600
"""A killed stage must first be finished before the next one can begin."""


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--variant", default=None, help="only this one; default: all")
    parser.add_argument("--root", type=Path, default=None, help="where both runs go; default: a temporary directory")
    parser.add_argument("--straight", type=Path, default=None, help="root of an undisturbed run to compare with")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    root: Path = options.root or Path(tempfile.mkdtemp(prefix="pdforge-kill-"))
    straight, killed = options.straight or root / "straight", root / "killed"
    moments = random.Random(options.seed)

    print(f"seed {options.seed}, {root}", flush=True)
    _finish(options, straight)
    for stage in _stages(options, killed):
        took = _results(straight / stage.directory)["seconds"]
        _kill_in(stage, options, killed, after=moments.uniform(0, took))
    _finish(options, killed)
    return _compare(options, straight, killed)


def _command(options: argparse.Namespace, root: Path) -> list[str]:
    command = [sys.executable, "-m", "pdforge", "run", options.recipe]
    variant = ["--variant", options.variant] if options.variant else []
    return [*command, *variant, "--root", str(root), "--processes", str(options.processes)]


def _finish(options: argparse.Namespace, root: Path) -> None:
    subprocess.run(_command(options, root), check=True, stdout=subprocess.DEVNULL)


def _stages(options: argparse.Namespace, root: Path) -> list[Stage]:
    loaded = load_recipes(options.recipe, variants=[options.variant] if options.variant else ())
    return merged_stages(make_plans(loaded, local_profile(options.processes), root))


def _kill_in(stage: Stage, options: argparse.Namespace, root: Path, *, after: float) -> None:
    """Start the run, and kill it so many seconds after the stage began to work."""
    directory = StageDirectory(root / stage.directory)
    driver = subprocess.Popen(_command(options, root), stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + BEGIN_TIMEOUT_S
    while not list(directory.attempts.glob("*/rank0.json")):
        if driver.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{stage.title}: did not begin")
        time.sleep(0.05)
    began = time.monotonic()
    while time.monotonic() - began < after and not directory.done.exists():
        time.sleep(0.02)
    _kill(driver, directory)
    state = "had just finished" if directory.done.exists() else _progress(directory)
    print(f"{stage.title}: killed after {time.monotonic() - began:.1f} s, {state}", flush=True)


def _kill(driver: subprocess.Popen[bytes], directory: StageDirectory) -> None:
    os.killpg(driver.pid, signal.SIGKILL)
    for record in directory.attempts.glob("*/rank*.json"):
        try:
            os.killpg(os.getpgid(json.loads(record.read_text())["process"]["pid"]), signal.SIGKILL)
        except ProcessLookupError:
            continue
    driver.wait()


def _progress(directory: StageDirectory) -> str:
    try:
        row = json.loads(directory.progress.read_text())
    except FileNotFoundError:
        return "before its first progress"
    return f"at {row.get('step', row.get('done'))} of {row.get('of', row.get('total'))} {row['unit']}"


def _compare(options: argparse.Namespace, straight: Path, killed: Path) -> int:
    """Print what both came to; 0 when all is equal."""
    same = True
    print(f"\n{'':32}{'straight':>20}{'killed':>20}")
    for stage in _stages(options, straight):
        a, b = (_outcome(root / stage.directory) for root in (straight, killed))
        same = same and a == b
        print(f"{stage.title:32}{_loss(a)}{_loss(b)}  {'same bits' if a == b else 'DIFFERENT'}")
        for name, row in a["results"].get("tasks", {}).items():
            other = b["results"]["tasks"][name]
            print(f"  {name:30}{row['value']:>20.15f}{other['value']:>20.15f}")
    return 0 if same else 1


def _outcome(directory: Path) -> dict[str, Any]:
    """All that a stage came to, without what depends on the clock or on where it lies."""
    exported = StageDirectory(directory).output / HUGGINGFACE
    files = sorted(exported.iterdir()) if exported.is_dir() else []
    return {
        "results": {key: value for key, value in _results(directory).items() if key not in ("seconds", "directory")},
        "rows": _rows(StageDirectory(directory).metrics),
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    }


def _loss(outcome: dict[str, Any]) -> str:
    loss = outcome["results"].get("heldout_loss")
    return f"{'':20}" if loss is None else f"{loss:>20.15f}"


def _results(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(StageDirectory(directory).done.read_text())["results"]
    return found


def _rows(metrics: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
