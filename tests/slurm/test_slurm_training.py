"""The real trainer on two nodes: the numbers of a local run, bit for bit, also when it is told to save and requeued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.heartbeat import PHASES
from pdforge.layout import StageDirectory
from tests.slurm.harness import TESTS, User, wait_for
from tests.stages.conftest import rows

pytestmark = pytest.mark.slow

CHOSEN = (str(TESTS / "tiny.yaml"), "--variant", "pd", "--set", "training.steps=39")


def trainings(root: Path) -> tuple[StageDirectory, StageDirectory]:
    """The teacher's stage directory and the student's."""
    (teacher,), (student,) = root.glob("teachers/*"), root.glob("tiny-pd-*/train")
    return StageDirectory(teacher), StageDirectory(student)


def test_the_graph_ends_with_the_losses_of_a_local_run(user: User) -> None:
    del user.environment["PDFORGE_TEST_ENTRY"]
    user.environment["GLOO_SOCKET_IFNAME"] = "lo"
    here = user.folder / "here"
    user.pdforge("run", *CHOSEN, "--processes", "2", "--root", str(here), seconds=900)
    user.pdforge("submit", "--cluster", "two", *CHOSEN)
    assert wait_for(lambda: any(user.root.glob("tiny-pd-*/train/metrics.jsonl")), 900), user.describe()
    teacher, student = trainings(user.root)
    assert wait_for(lambda: len(rows(student)) >= 3, 120), user.describe()
    user.cluster("scancel", "--signal=USR2", user.job())
    user.wait_for_end(600)
    assert student.done.exists(), user.describe()

    teacher_here, student_here = trainings(here)
    assert rows(teacher) == rows(teacher_here)
    assert rows(student) == rows(student_here)
    assert len(teacher.all_attempts()) == 1
    assert len(student.all_attempts()) == 2
    page = json.loads(user.pdforge("status", *CHOSEN, "--cluster", "two", "--timings", "--json"))
    first, second = next(stage for stage in page["runs"][0]["stages"] if stage["key"].startswith("train"))["timings"]
    assert list(second["seconds"]) == ["scheduler", *PHASES]
    assert second["requested"] > first["requested"]
