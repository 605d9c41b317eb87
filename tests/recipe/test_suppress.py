"""`# pdforge: ignore[…] because …`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.diagnostics import Severity
from pdforge.recipe.load import load_recipes
from tests.recipe.sound import SOUND, findings, spoil

HOT = spoil("temperature: 1.0", "temperature: 9{}")


def test_a_warning_with_a_reason_is_ignored_on_its_line_only() -> None:
    assert [d.code for d in findings(HOT.replace("{}", ""))] == ["PD151"]
    assert findings(HOT.replace("{}", "  # pdforge: ignore[PD151] because we study it")) == []
    other = findings(HOT.replace("{}", "  # pdforge: ignore[PD152] because we study it"))
    assert [d.code for d in other] == ["PD151", "PD011"]
    elsewhere = HOT.replace("{}", "\n  # pdforge: ignore[PD151] because we study it")
    assert [d.code for d in findings(elsewhere)] == ["PD151", "PD011"]


def test_a_comment_that_ignores_nothing_is_a_warning() -> None:
    text = HOT.replace("{}", "  # pdforge: ignore[PD152, PD151] because we study it")
    (found,) = findings(text)
    assert (found.code, found.severity, found.place.line) == ("PD011", Severity.WARNING, 20)
    assert "PD152" in found.message
    # a part of the file's recipes, or another value, does not tell
    assert findings(text, overrides=["objective.temperature=8"]) != []
    assert [d.code for d in findings(text, overrides=["data.seed=1"])] == []


def test_a_comment_for_one_variant_is_used() -> None:
    text = SOUND + "variants:\n  hot: {objective: {temperature: 9}}  # pdforge: ignore[PD151] because so\n  cold: {}\n"
    assert findings(text) == []
    assert findings(text, variants=["cold"]) == []


def test_a_comment_in_an_extended_file_counts(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(HOT.replace("{}", " # pdforge: ignore[PD151] because we study it"))
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\n")
    assert load_recipes(str(tmp_path / "mine.yaml"))[0].warnings == []


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("# pdforge: ignore[PD151]", "needs a reason"),
        ("# pdforge: ignore[PD151] because", "needs a reason"),
        ("# pdforge: ignore[PD999] because of it", "PD999, which is no rule"),
        ("# pdforge: ignore[PD003] because of it", "PD003, which is no rule"),
        ("# pdforge: ignore[] because of it", "names no rule"),
        ("# pdforge: ignore because of it", "names no rule"),
    ],
)
def test_a_comment_that_is_not_well_formed_is_an_error(comment: str, message: str) -> None:
    faults = [d for d in findings(HOT.replace("{}", f" {comment}")) if d.code == "PD010"]
    assert len(faults) == 1
    assert message in faults[0].message
    assert faults[0].place.line == 1 + HOT[: HOT.index("{}")].count("\n")


def test_errors_cannot_be_ignored() -> None:
    text = spoil("tokens: 600k", "tokens: 2M  # pdforge: ignore[PD113] because I say so")
    assert [d.code for d in findings(text)] == ["PD113"]


def test_other_comments_are_comments() -> None:
    assert findings(SOUND + "# pdforge is fine\n# pdforge: see the docs\n") == []
