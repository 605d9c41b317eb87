"""The pre-commit hook, the GitHub Action and the example workflow: what they run is run here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cli.pdforge_process import ROOT
from tests.recipe.sound import SOUND, spoil

BIN = Path(sys.executable).parent
HOT = spoil("temperature: 1.0", "temperature: 9")


def _yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def _run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def _git(cwd: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
    subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a sound recipe, a part, and a file that is no recipe, committed."""
    here = tmp_path / "repository"
    (here / "recipes").mkdir(parents=True)
    (here / "recipes" / "my recipe.yaml").write_text(SOUND)
    (here / "recipes" / "_part.yaml").write_text("objective: {temperature: 2}\n")
    (here / "other.yaml").write_text("a: 1\n")
    _git(here, "init", "-q", "-b", "main")
    _git(here, "add", ".")
    _git(here, "commit", "-q", "-m", "one")
    return here


class TestPreCommit:
    """The hook, as pre-commit runs it; only its own installing of pdforge is left out."""

    @pytest.fixture
    def hooked(self, repository: Path) -> Path:
        (hook,) = _yaml(ROOT / ".pre-commit-hooks.yaml")
        assert hook["language"] == "python"
        local = {"repos": [{"repo": "local", "hooks": [{**hook, "language": "system"}]}]}
        with (repository / ".pre-commit-config.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(local, file)
        _git(repository, "add", ".")
        return repository

    def _hook(self, cwd: Path) -> subprocess.CompletedProcess[str]:
        home = str(cwd.parent / "home")
        return _run([sys.executable, "-m", "pre_commit", "run", "--all-files"], cwd, PRE_COMMIT_HOME=home)

    def test_sound_recipes_pass_and_other_files_are_left_alone(self, hooked: Path) -> None:
        done = self._hook(hooked)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Passed" in done.stdout

    def test_a_mistake_stops_the_commit_at_its_line(self, hooked: Path) -> None:
        (hooked / "recipes" / "my recipe.yaml").write_text(spoil("layers: 4", "layers: 0"))
        done = self._hook(hooked)
        assert done.returncode == 1
        assert "recipes/my recipe.yaml:18:49: PD005 error: layers is 0" in done.stdout

    def test_a_warning_does_not(self, hooked: Path) -> None:
        (hooked / "recipes" / "my recipe.yaml").write_text(HOT)
        assert self._hook(hooked).returncode == 0


class TestAction:
    """The steps of action.yml under bash, with the expressions that GitHub would fill in."""

    def _steps(
        self, cwd: Path, **inputs: str
    ) -> tuple[dict[str, subprocess.CompletedProcess[str]], dict[str, str], str]:
        action = _yaml(ROOT / "action.yml")
        values = {name: spec["default"] for name, spec in action["inputs"].items()} | inputs
        context = {f"inputs.{name}": value for name, value in values.items()} | {"github.action_path": str(ROOT)}
        runner = cwd.parent / "runner"
        runner.mkdir(exist_ok=True)
        files = {name: runner / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        done = {}
        for step in action["runs"]["steps"]:
            if "run" not in step or step["name"] == "Install pdforge":
                continue
            if step.get("if") == "inputs.base != ''" and not values["base"]:
                continue
            env = {
                key: re.sub(r"\$\{\{ (.+?) \}\}", lambda m: context[m[1]], text) for key, text in step["env"].items()
            }
            assert "${{" not in step["run"]  # an expression in a script could become code
            script = runner / "step.sh"
            script.write_text(step["run"], encoding="utf-8")
            bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]  # as GitHub calls it
            paths = {name: str(file) for name, file in files.items()}
            done[step["name"]] = _run(bash, cwd, RUNNER_TEMP=str(runner), **paths, **env)
        outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        return done, outputs, files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")

    def test_sound_recipes_pass(self, repository: Path) -> None:
        done, outputs, _ = self._steps(repository)
        assert list(done) == ["Validate recipes"]
        assert (done["Validate recipes"].returncode, done["Validate recipes"].stdout, outputs) == (0, "", {})

    def test_mistakes_are_annotations_and_sarif(self, repository: Path) -> None:
        (repository / "recipes" / "my recipe.yaml").write_text(spoil("layers: 4", "layers: 0"))
        done, _, _ = self._steps(repository, sarif="out.sarif", recipes="recipes/*.yaml\n\n")
        step = done["Validate recipes"]
        assert step.returncode == 1
        assert step.stdout.startswith("::error file=recipes/my recipe.yaml,line=18,col=49,")
        assert '"ruleId": "PD005"' in (repository / "out.sarif").read_text(encoding="utf-8")

    def test_a_change_is_told_as_markdown(self, repository: Path) -> None:
        (repository / "recipes" / "my recipe.yaml").write_text(HOT)
        (repository / "recipes" / "added.yaml").write_text(SOUND)
        _git(repository, "add", ".")
        done, outputs, summary = self._steps(repository, base="main")
        assert done["Compare recipes"].returncode == 0, done["Compare recipes"].stderr
        told = Path(outputs["diff"]).read_text(encoding="utf-8")
        assert told == summary
        assert told.startswith("## recipes/my recipe.yaml\n")
        assert "| `objective.temperature` | `1.0` | `9.0` | changes the science: student |" in told
        assert "added" not in told

    def test_no_change_is_no_comment(self, repository: Path) -> None:
        _, outputs, summary = self._steps(repository, base="HEAD")
        assert (outputs, summary) == ({}, "")

    def test_a_recipe_that_cannot_be_compared_is_said(self, repository: Path) -> None:
        (repository / "recipes" / "my recipe.yaml").write_text("recipe: x\n")
        done, outputs, _ = self._steps(repository, base="main")
        assert done["Compare recipes"].returncode == 0
        assert "::warning::recipes/my recipe.yaml cannot be compared with main" in done["Compare recipes"].stdout
        assert outputs == {}

    @pytest.mark.slow
    def test_installing_gives_a_pdforge_that_validates(self, repository: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(repository.parent / "fresh")], check=True)
        path = f"{repository.parent / 'fresh' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        (install,) = (s for s in _yaml(ROOT / "action.yml")["runs"]["steps"] if s.get("name") == "Install pdforge")
        env = {**os.environ, "PATH": path, "ACTION": str(ROOT)}
        env.pop("PYTHONPATH", None)
        subprocess.run(["bash", "-eo", "pipefail", "-c", install["run"]], cwd=repository, env=env, check=True)
        pdforge = shutil.which("pdforge", path=path)
        assert pdforge is not None
        assert pdforge.startswith(str(repository.parent))
        subprocess.run([pdforge, "validate", "recipes", "pd_star"], cwd=repository, env=env, check=True)


def test_the_example_workflow_fits_the_action() -> None:
    action = _yaml(ROOT / "action.yml")
    workflow = _yaml(ROOT / "examples" / "github-workflow" / "recipes.yml")
    steps = workflow["jobs"]["review"]["steps"]
    (review,) = (step for step in steps if step.get("id") == "pdforge")
    assert review["with"].keys() <= action["inputs"].keys()
    used = re.findall(r"steps\.pdforge\.outputs\.(\w+)", str(workflow))
    assert used
    assert set(used) <= action["outputs"].keys()
    for step in steps:
        assert "${{" not in step.get("run", "")
