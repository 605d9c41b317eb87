"""`pdforge validate`, as a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.pdforge_process import pdforge
from tests.recipe.sound import SOUND, spoil

BROKEN = spoil("top_p: 0.95", "top_p: 1.2")
HOT = spoil("temperature: 1.0", "temperature: 9")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "sound.yaml").write_text(SOUND)
    (tmp_path / "broken.yaml").write_text(BROKEN)
    (tmp_path / "hot.yaml").write_text(HOT)
    return tmp_path


def test_a_sound_recipe(here: Path) -> None:
    done = pdforge("validate", "sound.yaml", cwd=here)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no errors, no warnings; 1 sound recipe: small\n", "")


def test_the_text_shows_the_line_and_a_caret_under_the_value(here: Path) -> None:
    done = pdforge("validate", "broken.yaml", cwd=here)
    assert done.returncode == 1
    assert done.stdout == (
        "error[PD005]: top_p is 1.2; it must be at most 1\n"
        "  --> broken.yaml:16:23  (teacher.truncation.top_p)\n"
        "  16 |   truncation: {top_p: 1.2, top_k: 50}\n"
        "     |                       ^\n"
        "  help: Probability mass to keep.\n"
        "\n"
        "1 error, no warnings; no sound recipes\n"
    )


def test_warnings_are_no_failure(here: Path) -> None:
    done = pdforge("validate", "hot.yaml", cwd=here)
    assert done.returncode == 0
    assert "warning[PD151]: τ is 9" in done.stdout
    assert "1 warning" in done.stdout


def test_concise_is_one_line_a_finding(here: Path) -> None:
    done = pdforge("validate", "--format", "concise", "broken.yaml", "hot.yaml", cwd=here)
    assert [line.split(" ")[:3] for line in done.stdout.splitlines()] == [
        ["broken.yaml:16:23:", "PD005", "error:"],
        ["hot.yaml:20:16:", "PD151", "warning:"],
    ]


def test_json_is_for_programs(here: Path) -> None:
    done = pdforge("validate", "--format", "json", ".", "nowhere.yaml", cwd=here)
    assert done.returncode == 2
    assert "nowhere.yaml" in done.stderr
    printed = json.loads(done.stdout)
    assert [recipe["source"] for recipe in printed["recipes"]] == ["hot.yaml", "sound.yaml"]
    error, warning = printed["diagnostics"]
    assert warning["code"] == "PD151"
    assert error == {
        "code": "PD005",
        "severity": "error",
        "message": "top_p is 1.2; it must be at most 1",
        "file": "broken.yaml",
        "line": 16,
        "column": 23,
        "field": "teacher.truncation.top_p",
        "help": "Probability mass to keep.",
    }


def test_directories_globs_and_parts(here: Path) -> None:
    (here / "deep").mkdir()
    (here / "deep" / "_part.yaml").write_text("objective: {temperature: 2}\n")
    (here / "deep" / "mine.yml").write_text("extends: [../sound.yaml, _part.yaml]\nrecipe: mine\n")
    assert "1 sound recipe: mine" in pdforge("validate", "deep", cwd=here).stdout
    assert "2 sound recipes: small, small" in pdforge("validate", "[sh]o*.yaml", cwd=here).stdout
    (here / "empty").mkdir()
    for source in ("empty", "z*.yaml"):
        done = pdforge("validate", source, cwd=here)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"no recipes in {source}" in done.stderr


def test_stdin_has_lines_too() -> None:
    assert pdforge("validate", "-", stdin=SOUND).returncode == 0
    done = pdforge("validate", "-", stdin=BROKEN)
    assert done.returncode == 1
    assert "--> <stdin>:16:23" in done.stdout
    assert "16 |   truncation: {top_p: 1.2, top_k: 50}" in done.stdout
    large = "# " + "€" * 100_000  # in characters it is not
    assert "larger than 256 kB" in pdforge("validate", "-", stdin=SOUND + large).stderr
    done = pdforge("validate", "-", stdin=b"recipe: \xff")
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr


def test_select_ignore_and_exit_zero(here: Path) -> None:
    assert pdforge("validate", "broken.yaml", "--ignore", "PD0", cwd=here).returncode == 0
    assert pdforge("validate", "broken.yaml", "--select", "PD151", cwd=here).returncode == 0
    assert pdforge("validate", "broken.yaml", "--select", "PD00", cwd=here).returncode == 1
    done = pdforge("validate", "broken.yaml", "--exit-zero", cwd=here)
    assert done.returncode == 0
    assert "1 error" in done.stdout


def test_overrides_and_variants() -> None:
    done = pdforge("validate", "pd_star", "--variant", "3.8b", "--set", "objective.temperature=-1")
    assert done.returncode == 1
    assert "  --> --set objective.temperature  (objective.temperature)\n" in done.stdout
    done = pdforge("validate", "pd_star", "--variant", "3.8")
    assert done.returncode == 2
    assert "did you mean 3.8b?" in done.stderr


def test_what_a_file_holds_does_not_steer_the_terminal(here: Path) -> None:
    (here / "evil.yaml").write_text(SOUND + '"\\e[31m[red]x": 1\n')
    done = pdforge("validate", "evil.yaml", cwd=here, FORCE_COLOR="")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "[red]x" in done.stdout


def test_a_terminal_without_greek_letters(here: Path) -> None:
    done = pdforge("validate", "hot.yaml", cwd=here, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "? is 9" in done.stdout


def test_a_pattern_that_is_none_is_said(here: Path) -> None:
    done = pdforge("validate", "rec**", cwd=here)
    assert done.returncode == 2
    assert "rec** is no pattern of file names" in done.stderr


def test_cluster_profiles_among_recipes_are_none(tmp_path: Path) -> None:
    (tmp_path / "sound.yaml").write_text(SOUND)
    (tmp_path / "clusters.yaml").write_text("mine: {executor: slurm}\n")
    done = pdforge("validate", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "1 sound recipe" in done.stdout


def test_a_code_that_is_none_selects_nothing_by_mistake() -> None:
    done = pdforge("validate", "quickstart", "--select", "PD999")
    assert done.returncode == 2
    assert "no code is or begins with 'PD999'" in done.stderr
