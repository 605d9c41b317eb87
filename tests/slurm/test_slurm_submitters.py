"""Submitters that are killed half-way: what they leave neither blocks a stage nor runs without being compiled."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pdforge.launch.submission import latest_submission
from pdforge.layout import StageDirectory
from tests.slurm.harness import User

KILLED = """\
import os, signal, sys
from pdforge.launch import graph

claim = graph.claim

def killed(stage, submission):
    if {claims}:
        claim(stage, submission)
    os.kill(os.getpid(), signal.SIGKILL)

graph.claim = killed
from pdforge.cli.app import run
run(sys.argv[1:])
"""


@pytest.mark.parametrize("claims", [True, False], ids=["after the claim", "before the claim"])
def test_the_next_submit_goes_on_where_one_was_killed(user: User, claims: bool) -> None:
    user.count(train={"steps": 3})
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(claims=claims), "submit", "--cluster", "two", user.recipe],
        cwd=user.folder,
        env=user.environment,
        check=False,
    )
    assert killed.returncode == -9
    (orphan,) = user.queue()
    (tokens,) = map(StageDirectory, (user.root / "tokens").iterdir())
    assert not tokens.job_json.exists()
    said = user.pdforge("submit", "--cluster", "two", user.recipe)
    submission = latest_submission(tokens)
    assert submission is not None
    assert (submission.job == orphan) == claims, "a job that was claimed is used, one that was not is cancelled"
    assert ("attached" in said) == claims
    user.wait_for_end()
    assert {stage["state"] for stage in user.stages().values()} == {"done"}, user.describe()


def test_a_job_of_another_profile_that_waits_for_a_dead_submitter_is_named(user: User) -> None:
    killed = [sys.executable, "-c", KILLED.format(claims=True), "submit", "--cluster", "two", user.recipe]
    subprocess.run(killed, cwd=user.folder, env=user.environment, check=False)
    (orphan,) = user.queue()
    file = user.folder / "clusters.yaml"
    file.write_text(file.read_text().replace("nodes: 2", "nodes: 1"))
    refused = user.pdforge("submit", "--cluster", "two", user.recipe, code=2)
    assert f"scancel {orphan}" in refused
    assert user.queue() == [orphan], "nothing of the second submit is left"
