"""Plans of many runs: each run once, what they share once, and no more than a hundred columns."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from pdforge.cli.planning import plan
from pdforge.cli.render.form import Form
from pdforge.cli.render.plan_deep import deep_check
from pdforge.cli.render.plan_files import to_file
from pdforge.cli.render.plan_forms import to_text
from pdforge.cli.render.plan_groups import spans
from pdforge.launch.deep import Looked
from pdforge.plan.page import PlanPage
from pdforge.plan.profile import Profile
from tests.cli.pdforge_process import pdforge

LOCAL = Profile(name="local", device="cpu", processes_per_node=2)
H100 = Profile(name="h100", executor="slurm", device="cuda", nodes=8, processes_per_node=8, gpu="H100")


def page(recipe: str, root: Path, profile: Profile = LOCAL) -> PlanPage:
    return plan(recipe, [], [], root, profile, lenient=False, deep=False).page


def text(*pages: PlanPage) -> str:
    return to_text(pages, [], io.StringIO())


@pytest.mark.parametrize(
    ("recipe", "profile"),
    [("mini/losses", LOCAL), ("mini/truncation", LOCAL), ("beyond/joint", H100), ("paper/sizes", H100)],
)
def test_a_sweep_fits_a_hundred_columns(recipe: str, profile: Profile, tmp_path: Path) -> None:
    made = page(recipe, tmp_path, profile)
    lines = text(made).splitlines()
    assert max(map(len, lines)) <= 100
    # every run once, with its hash and the number of its training
    for run in made.runs:
        [row] = [line for line in lines if run.hash in line and not line.endswith("/train")]
        number = next(step.number for step in made.stages if step.directory == f"{run.directory}/train")
        assert row.split()[0] == str(number)


def test_stages_that_agree_share_a_row(tmp_path: Path) -> None:
    made = page("beyond/joint", tmp_path)
    lines = text(made).splitlines()
    rows = [re.split(r" {2,}", line) for line in lines if re.match(r"\d+–\d+ ", line)]
    assert [(row[0], row[1]) for row in rows] == [("3–26", "train × 24")]
    # of those whose learning rate or α falls at the end one checkpoint more is written
    assert [line.split("  ")[0] for line in lines if "× 12" in line] == ["train × 12 (3–14)", "train × 12 (15–26)"]
    assert sum(line.startswith("student") for line in lines) == 1
    # six curves of α, four of τ, one of the learning rate, each with the trainings that follow it
    drawn = [line.split()[0] for line in lines if re.match(r"  (α|τ|lr) +\d", line)]
    assert drawn == ["α"] * 6 + ["τ"] * 4 + ["lr"]
    assert "  τ       3, 7, 11, 15, 19, 23: 0.5 at every step" in lines
    assert any(line.startswith("train × 24 (3–26)") for line in lines)


def test_many_runs_side_by_side_are_rows(tmp_path: Path) -> None:
    pages = [page(recipe, tmp_path) for recipe in ("mini/losses", "mini/alpha")]
    shown = text(*pages)
    assert max(map(len, shown.splitlines())) <= 100
    assert [shown.count(run.hash) for each in pages for run in each.runs] == [1] * 36
    # what all share, and what all share that have it, is said once, in words
    assert shown.count("200") == 1
    assert re.search(r"the same in all: [^:]*steps 200", shown.replace("\n  ", " "))
    assert shown.count("top-0.95-100") == 1
    markdown, html = (to_file(form, pages) for form in (Form.MARKDOWN, Form.HTML))
    header = next(line for line in markdown.splitlines() if line.startswith("| run |"))
    assert header == "| run | hash | loss | α | learning rate | seed |"
    assert html.count("<tr>") == 37


def test_two_recipes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    made = page("quickstart", tmp_path)
    assert "1: lm  1: pd  2: lm  2: pd" in re.sub(r" {2,}", "  ", text(made, made))


def test_what_the_deep_check_found_is_part_of_every_form(tmp_path: Path) -> None:
    planned = plan("pd_star", ["1.9b"], [], tmp_path, H100, lenient=False, deep=False)
    training = planned.plans[0].training
    gib = 1 << 30
    good, bad = (
        Looked(training, {"activations": 30 * gib}, gib // 2, ""),
        Looked(training, {}, 0, "heads <7> do not divide"),
    )
    [section] = deep_check([good])
    assert section.table is not None
    assert section.table.rows[0].cells == ("activations", "30.00")
    pages = [planned.page]
    for form in (Form.MARKDOWN, Form.HTML):
        written = to_file(form, pages, [good, bad])
        assert "30.00" in written
        assert "cannot be built on 64 processes" in written
        assert "heads <7>" not in written
    shown = to_text(pages, [], io.StringIO(), [good, bad])
    assert "cannot be built on 64 processes: heads <7> do not divide" in shown.replace("\n", " ")


def test_spans() -> None:
    assert spans([6, 1, 3, 4, 5]) == "1, 3–6"
    assert spans([2]) == "2"


def test_a_variant_that_no_recipe_has_is_refused() -> None:
    done = pdforge("plan", "vanilla", "pd_star", "-v", "pd", "-v", "1.9")
    assert done.returncode == 2
    assert "no variant '1.9' in any of the recipes" in done.stderr
    assert "1.9b" in done.stderr
