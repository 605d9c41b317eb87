"""The miniature's page: what it says was published was, its verdicts follow from the results, and the kept results give
the kept pages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pdforge.plan.build import make_plans
from pdforge.plan.content import written_fingerprint
from pdforge.plan.profile import local_profile
from pdforge.recipe.gallery import gallery_names
from pdforge.recipe.load import load_recipes
from pdforge.report.compare import Comparison
from pdforge.report.forms.data import read_results
from pdforge.report.gather import gather
from pdforge.report.model import StoreResult
from tests.report.made import results, run

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import miniature  # noqa: E402 - a script

KEPT = ROOT / "docs" / "miniature" / "results.json"
TABLES = json.loads((ROOT / "tests" / "data" / "paper_tables.json").read_text(encoding="utf-8"))
GROUPS = list(dict.fromkeys(name for one in miniature.FINDINGS for name in (one.better, one.worse)))


@pytest.mark.parametrize("finding", miniature.FINDINGS, ids=lambda finding: finding.says)
def test_what_is_published(finding: miniature.Finding) -> None:
    """The values are the paper's, and say that one does better."""
    for row in (finding.theirs, finding.than):
        if row.table != "RS-KD":
            assert TABLES[row.table][row.name]["Average"] == row.value
    gain = finding.theirs.value - finding.than.value
    assert gain < 0 if finding.theirs.table == "RS-KD" else gain > 0


def test_findings_are_about_runs_of_the_miniature() -> None:
    names = [name for name in gallery_names() if name.startswith("mini/")]
    variants = {(one.variant or "").removesuffix("-seed-0") for name in names for one in load_recipes(name)}
    assert variants >= set(GROUPS)


def test_its_seeds_are_groups_and_its_studies_share_a_baseline(tmp_path: Path) -> None:
    recipes = [one for name in gallery_names() if name.startswith("mini/") for one in load_recipes(name)]
    plans = make_plans(recipes, local_profile(processes=1), tmp_path, fingerprint_of=written_fingerprint)
    comparison = Comparison(gather(plans, tmp_path))
    assert {len(group.runs) for group in comparison.groups} == {3}
    assert {group.name for group in comparison.groups} >= set(GROUPS)
    baselines = Counter(getattr(comparison.baseline(group), "name", "") for group in comparison.groups)
    assert baselines == {"lm-cosine": len(comparison.groups) - 5, "half-lm": 1, "tenth-lm": 1, "": 3}


def test_verdicts_follow_from_difference_and_noise() -> None:
    near = [run(name, seed, 3.0 + 0.01 * (seed - 1)) for name in ("a", "b") for seed in range(3)]
    far = [run("c", seed, 2.0 + 0.01 * (seed - 1)) for seed in range(3)]
    row = miniature.Row("T1", "x", 1.0)
    study = results(*near, *far)

    def judged(better: str, worse: str) -> tuple[str, str, str]:
        return miniature.verdict(study, miniature.Finding("", better, worse, row, row))

    assert judged("c", "a") == ("-1.0000", "0.0200", "**shows**")  # t(0.975, 6)·0.01·√(2/3)
    assert judged("a", "c") == ("+1.0000", "0.0200", "the opposite")
    assert judged("a", "b") == ("+0.0000", "0.0200", "inside the noise")


def test_the_table_counts_its_verdicts() -> None:
    runs = [run(name, seed, 3.0 - number + 0.001 * seed) for number, name in enumerate(GROUPS) for seed in range(3)]
    shows = sum(GROUPS.index(one.better) > GROUPS.index(one.worse) for one in miniature.FINDINGS)
    total = len(miniature.FINDINGS)
    written = miniature.findings(results(*runs))
    counts = f"Findings: {total}. Shown: {shows}. Inside the noise: 0. The opposite: {total - shows}.\n"
    assert written.endswith(counts)
    assert written.count("**shows**") == shows


def test_a_row_with_one_seed_is_not_judged() -> None:
    row = miniature.Row("T1", "x", 1.0)
    study = results(run("lm", 0, 3.0), run("lm", 1, 3.1), run("pd", 0, 2.9), run("pd", 1), run("kd", 0, 2.8))
    for better in ("pd", "kd", "absent"):
        assert miniature.verdict(study, miniature.Finding("", better, "lm", row, row)) == ("", "", "not measured")
    none = miniature.findings(study)
    unmeasured = len(miniature.FINDINGS)
    assert none.count("not measured") == unmeasured
    assert f"Findings: 0. Shown: 0. Inside the noise: 0. The opposite: 0. Not measured yet: {unmeasured}." in none


def test_what_is_kept_is_finished() -> None:
    study = results(run("lm", 0, 3.0), run("pd", 0, 2.9, store="s", teacher="t"), run("pd", 1, store="u"))
    stores = [StoreResult(identity=name, kept_count=1, kept_mass=1, positions=1, bytes=1) for name in ("s", "u")]
    kept = miniature.finished(study.model_copy(update={"stores": stores}))
    assert [one.name for one in kept.runs] == ["lm-seed-0", "pd-seed-0"]
    assert [one.identity for one in kept.stores] == ["s"]


def test_the_kept_results_give_the_kept_pages() -> None:
    kept = read_results(KEPT)
    page = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8")
    assert miniature.BEGIN + miniature.findings(kept) + miniature.END in page
    command = [sys.executable, "-m", "pdforge", "report", str(KEPT), "--format", "markdown"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == (ROOT / "docs" / "miniature" / "report.md").read_text(encoding="utf-8")
