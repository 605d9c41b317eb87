"""The wheel alone, in a clean environment far from the checkout: recipes and templates travel with it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_clean_environment_plans_a_gallery_recipe_by_name(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, PROJECT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("pdforge-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for file in (
        "recipes/quickstart.yaml",
        "recipes/pd_star.yaml",
        "templates/train.py.j2",
        "templates/launch.sh.j2",
        "templates/plan.html.j2",
    ):
        assert f"pdforge/_data/{file}" in names

    _run(sys.executable, "-m", "venv", tmp_path / "clean", cwd=tmp_path)
    binaries = tmp_path / "clean" / "bin"
    _run(
        binaries / "python", "-m", "pip", "--disable-pip-version-check", "--quiet", "install", str(wheel), cwd=tmp_path
    )
    away = tmp_path / "away"
    away.mkdir()
    page = _run(binaries / "pdforge", "plan", "quickstart", cwd=away)
    assert "pretrain teacher" in page
    assert "train pd" in page
    # without the training extra a run is refused, with the way to get it, before anything starts
    refused = subprocess.run(
        [str(binaries / "pdforge"), "run", "quickstart"], cwd=away, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "pdforge[train]" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (away / "runs").exists()
