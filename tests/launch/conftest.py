from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pdforge.launch import task
from pdforge.launch.drive import Drive
from pdforge.layout import StageDirectory
from pdforge.plan.jobs import TokenizeJob
from pdforge.plan.model import Figures, ModelFigures, Plan, Stage
from pdforge.plan.profile import Profile
from pdforge.recipe.models import Recipe, StandardLibraryCorpus, TrainedTokenizer

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
ENTRY = "counter:main"

RECIPE = Recipe.model_validate(
    {
        "recipe": "count",
        "data": {
            "corpus": {"kind": "python-stdlib"},
            "tokenizer": {"kind": "trained", "vocabulary": 512},
            "sequence_length": 64,
            "train_tokens": 8192,
            "validation_tokens": 512,
        },
        "student": {"architecture": {"family": "llama3", "hidden": 32, "ffn": 64, "layers": 1, "heads": 2}},
        "objective": {"alpha": 0},
        "training": {
            "batch": {"global": 8, "micro": 4},
            "optimizer": {"learning_rate": 0.001},
            "precision": "float32",
        },
    }
)


def make_stage(title: str, directory: str, *, processes: int = 2, needs: tuple[str, ...] = ()) -> Stage:
    job = TokenizeJob(
        identity="0",
        title=title,
        corpus=[StandardLibraryCorpus(kind="python-stdlib")],
        tokenizer=TrainedTokenizer(kind="trained", vocabulary=512),
        sequence_length=64,
        train_sequences=128,
        validation_sequences=8,
        seed=0,
        output="-",
    )
    return Stage(
        key=f"tokenize:{title}",
        kind="tokenize",
        title=title,
        identity=title,
        directory=directory,
        needs=list(needs),
        processes=processes,
        shared=not directory.endswith("train"),
        job=job,
    )


def make_plan(variant: str, stages: list[Stage]) -> Plan:
    return Plan(
        name="count",
        variant=variant,
        hash=variant,
        directory=f"count-{variant}",
        recipe=RECIPE,
        profile=Profile(name="local", processes_per_node=2),
        stages=stages,
        figures=Figures(
            student=ModelFigures(parameters=1, flops_per_token=1), teacher=None, kept_entries=None, stages={}
        ),
    )


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks call the counter of this folder."""
    monkeypatch.setattr(task, "ENTRY", ENTRY)
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{REPOSITORY}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`counter(train={"fail_rank": 1})`: options of the stages whose directory has the word in it."""

    def set_options(**options: dict[str, object]) -> None:
        monkeypatch.setenv("COUNTER", json.dumps(options))

    return set_options


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A storage root; afterwards no process may be left that works in it."""
    yield tmp_path
    assert wait_for(lambda: not processes_of(tmp_path)), processes_of(tmp_path)


def drive(root: Path, *plans: Plan, **options: object) -> Drive:
    """A drive of `plans` that writes no job directories: the counter needs none."""
    return Drive(plans, root, write_stage=lambda *_: None, **options)  # type: ignore[arg-type]


def processes_of(root: Path) -> list[str]:
    """Command lines of the processes whose arguments or environment name the root, this one aside."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(root).encode() in text and state != "Z":
            found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def wait_for(condition: Callable[[], object], seconds: float = 180.0) -> bool:
    """Whether it has come to hold; a machine that does other things as well may need long for a start."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def starts(stage: StageDirectory) -> list[int]:
    """The step at which each start of the counter went on."""
    return [int(line) for line in (stage.output / "starts").read_text().split()]


COMMAND_RECIPE = """\
recipe: count
data:
  corpus: {kind: text, path: CORPUS}
  tokenizer: {kind: trained, vocabulary: 512}
  sequence_length: 64
  train_tokens: 8192
  validation_tokens: 512
student:
  architecture: {family: llama3, hidden: 32, ffn: 64, layers: 1, heads: 2}
objective: {alpha: 0}
training:
  batch: {global: 8, micro: 4}
  optimizer: {learning_rate: 0.001}
  precision: float32
variants:
  a: {}
  b: {training: {seed: 7}}
"""


@pytest.fixture
def folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe of two variants; storage root `runs` in it."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE / 'site'}:{os.environ['PYTHONPATH']}")
    monkeypatch.setenv("PDFORGE_TEST_ENTRY", ENTRY)
    monkeypatch.setenv("PDFORGE_ROOT", str(root / "runs"))
    monkeypatch.setenv("COLUMNS", "120")
    (root / "count.yaml").write_text(COMMAND_RECIPE.replace("CORPUS", str(root / "corpus.txt")))
    (root / "corpus.txt").write_text("one document\n" * 2000)
    return root


def start(folder: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    """A command, as a process that leads its own group."""
    return subprocess.Popen(
        [sys.executable, "-m", "pdforge", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def pdforge(folder: Path, *arguments: str, code: int = 0) -> str:
    """Call a command: its output; never a traceback of its own (`postmortem` and `logs` show those of jobs)."""
    process = start(folder, *arguments)
    output = process.communicate()[0]
    assert process.returncode == code, output
    assert "Traceback" not in output or arguments[0] in ("postmortem", "logs")
    return output
