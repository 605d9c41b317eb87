"""What `pdforge clusters check` says of a container, with no scheduler."""

from pathlib import Path

from pdforge.launch.check import _container
from pdforge.plan.profile import Container, Profile


def test_mounts_that_are_not_here_are_named_but_refused_by_nobody(tmp_path: Path) -> None:
    container = Container(image="docker://team/train", mounts=(f"{tmp_path}:/data", "/nowhere/data:/more"))
    said = _container(Profile(name="c", executor="slurm", container=container))
    assert [(check.name, check.state) for check in said] == [("container", "ok"), ("mount /nowhere/data", "absent")]
    assert "container.mounts" in said[1].remedy


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    container = Container(image=str(tmp_path / "train.sqsh"))
    (said,) = _container(Profile(name="c", executor="slurm", container=container))
    assert said.state == "missing"
    assert str(tmp_path) in said.value
