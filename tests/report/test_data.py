"""Files of results: what is taken from them, and what is refused, with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pdforge.errors import UsageError
from pdforge.report.compare import Comparison
from pdforge.report.forms.data import read_results, to_json
from tests.report.made import curve, results, run

STUDY = json.loads(to_json(Comparison(results(run("pd", 0, 3.0, loss=curve((1, 4.0), (2, 3.0)))))))


def refused(tmp_path: Path, text: str) -> str:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_results(tmp_path / "report.json")
    return caught.value.message.partition("report.json holds no results of a report: ")[2]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"flops_per_token": -1.5}, "runs.0.flops_per_token: should be at least 0, not -1.5"),
        ({"tokens": 10**400}, "runs.0.tokens: should be at most 1e+18, not 10000"),
        ({"device_hours": 1e300}, "runs.0.device_hours: should be at most 1e+150, not 1e+300"),
        ({"metrics": {"ece": {"value": float("nan")}}}, "runs.0.metrics.ece.value: should be a finite number, not nan"),
        ({"loss": {"tokens": [1], "values": [2.0, 1.0]}}, "runs.0.loss: 1 tokens, but 2 values"),
        ({"loss": {"tokens": [1, -2], "values": [2.0, 1.0]}}, "runs.0.loss.tokens.1: should be at least 0, not -2"),
        ({"schedules": [{"name": "α", "steps": [1], "values": []}]}, "runs.0.schedules.0: 1 steps, but 0 values"),
    ],
)
def test_numbers_that_nothing_can_be_made_of_are_named(tmp_path: Path, fields: Any, fault: str) -> None:
    page = {**STUDY, "runs": [{**STUDY["runs"][0], **fields}]}
    assert refused(tmp_path, json.dumps(page)).startswith(fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "it cannot be read as JSON (line 1, column 2)"),
        ("[" * 100_000, "it cannot be read as JSON"),
        ("[]", "runs: Field required"),
        ('{"runs": 3}', "runs: should be a valid list, not 3"),
    ],
)
def test_what_is_no_file_of_results(tmp_path: Path, text: str, fault: str) -> None:
    assert refused(tmp_path, text) == fault


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*/none\.json: No such file or directory"):
        read_results(tmp_path / "none.json")
