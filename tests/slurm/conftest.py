"""A cluster for the session, and a user of it for each test."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.harness import HERE, SCRIPT, Cluster, NoCluster, User, wait_for

TIMEOUT_S = 2400
"""Of a test: waits here are long, since they cost nothing where a machine is quick."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes, n1 and n2. Other options of `cluster.sh up`: `parametrize("cluster", [(...)], indirect=True)`."""
    root = Path(tempfile.mkdtemp(prefix="pdforge-slurm-", dir="/tmp"))
    try:
        made = Cluster(root, *getattr(request, "param", ()))
    except NoCluster as why:
        shutil.rmtree(root)
        pytest.skip(str(why))
    except AssertionError:  # its logs stay
        subprocess.run([SCRIPT, "down", "--root", root], check=False)
        raise
    yield made
    made.script("down")
    shutil.rmtree(root)


@pytest.fixture
def user(tmp_path: Path, cluster: Cluster) -> Iterator[User]:
    """Somebody with counters; afterwards none of their jobs and processes may be left."""
    somebody = User(tmp_path, cluster)
    yield somebody
    if left := somebody.queue():
        cluster("scancel", *left)
    assert wait_for(lambda: not somebody.queue() and not somebody.processes()), somebody.processes()
