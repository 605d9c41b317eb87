"""The HTML page in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.report.compare import Comparison
from pdforge.report.forms.data import read_results
from pdforge.report.forms.html import to_html
from pdforge.report.model import Schedule, TeacherResult
from pdforge.report.tables import tables
from tests.browser import open_page
from tests.report.made import curve, results, run

EVIL = "</script><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ramp = Schedule(name="α", steps=[1, 5, 10], values=[0.0, 0.9, 0.0])
    points = curve((100, 4.0), (500, 3.2), (1000, 3.0))
    runs = [
        run(group, seed, loss + seed / 100, loss=points, heldout=points, schedules=[ramp], tokens=1000)
        for group, loss in (("lm", 3.0), ("pd", 2.5), (EVIL, 2.6))
        for seed in range(2)
    ]
    study = results(*runs).model_copy(
        update={
            "teachers": [
                TeacherResult(key="t", name="teacher", parameters=1, steps=1, tokens=1, heldout_loss=2.0),
            ]
        }
    )
    comparison = Comparison(study)
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(to_html("A study", comparison, tables(comparison, every_run=True)), encoding="utf-8")
    return file


@pytest.mark.parametrize("dark", [False, True])
def test_every_chart_is_drawn_without_a_word_of_complaint(page: Path, tmp_path: Path, dark: bool) -> None:
    shown = open_page(page, tmp_path, dark=dark)
    assert shown.console == []
    assert "<title>A study</title>" in shown.dom
    assert shown.dom.count('class="marks"') == 4  # loss, held-out loss, differences, one schedule
    assert shown.dom.count("mark-line") >= 4
    assert ("#e6e6e6" if dark else "#1c1c1c") in shown.dom.split('class="marks"', 1)[1]


def test_it_is_one_file_of_less_than_a_megabyte_that_asks_no_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text) < 1_100_000
    assert " src=" not in text.split("<script>", 1)[0]
    assert "<link" not in text
    assert "default-src 'none'" in text
    assert "connect-src" not in text


def test_the_results_of_the_picture_in_the_docs_are_those_of_the_readme() -> None:
    root = Path(__file__).parents[2]
    found = read_results(root / "docs" / "report" / "quickstart.json")
    first, *_ = tables(Comparison(found))
    shown = [" ".join(line.split()) for line in (root / "README.md").read_text(encoding="utf-8").splitlines()]
    for row in first.rows:
        assert " ".join(" ".join(row).split()) in shown
