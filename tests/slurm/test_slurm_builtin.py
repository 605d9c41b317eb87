"""The built-in profile `slurm` as it stands, on a cluster with GPUs to ask for and on one without."""

from __future__ import annotations

import pytest

from pdforge.layout import read_json
from tests.slurm.harness import Cluster, User


@pytest.mark.parametrize(
    ("cluster", "device", "gpus"), [(("--gpus", "2"), "cuda", 2), ((), "cpu", None)], indirect=["cluster"]
)
def test_submit_to_slurm_uses_what_the_default_partition_has(
    user: User, cluster: Cluster, device: str, gpus: int | None
) -> None:
    user.count(train={"steps": 3, "delay": 0.2})
    user.environment["GLOO_SOCKET_IFNAME"] = "lo"
    user.pdforge("submit", "--cluster", "slurm", user.recipe)
    asked = cluster("scontrol", "show", "job", user.job())
    assert ("gres:gpu:2" in asked) == (gpus is not None), asked
    user.wait_for_end()
    (plan,) = (read_json(path) for path in user.root.glob("*/plan.json"))
    profile = plan["profile"]
    assert (profile["device"], profile["gpus_per_node"], profile["processes_per_node"]) == (device, gpus, 2)
    assert user.train.done.exists(), user.describe()
