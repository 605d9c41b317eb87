"""The page of the miniature: which findings of the paper show in its results, and which do not.

    python scripts/miniature.py runs/miniature/report.json ...

Takes what `pdforge report --format json` wrote, adds its finished runs to those kept in docs/miniature/results.json,
writes what `pdforge report` makes of all of them to docs/miniature/report.md, and the findings into docs/miniature.md.
So the campaign may be run a study at a time, on any day. A finding about a row with fewer than two seeds is not judged:
the page says that it is not measured.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from pdforge.report.compare import Comparison
from pdforge.report.forms.data import read_results, to_json
from pdforge.report.forms.markdown import to_markdown
from pdforge.report.model import HELDOUT, Results, merged
from pdforge.report.tables import Table, tables

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- written by scripts/miniature.py -->\n\n", "\n<!-- end -->\n"
SEEDS = 2
"""Of a row that is judged, at least."""
UNMEASURED = "not measured"


class Row(NamedTuple):
    """A published row and its figure: average accuracy in percent; of RS-KD the held-out loss in nats."""

    table: str
    name: str
    value: float


class Finding(NamedTuple):
    """One configuration does better than another: groups of the miniature, and the published rows that say so."""

    says: str
    better: str
    worse: str
    theirs: Row
    than: Row


LM, COSINE = Row("T1", "LLM-LM", 37.7), Row("T5", "LLM-NLL", 38.3)
FINDINGS = (
    Finding("a teacher helps", "nll", "lm-cosine", Row("T1", "LLM-KD", 38.3), LM),
    Finding("KLD does better than NLL", "kld", "nll", Row("T5", "LLM-KLD", 38.7), COSINE),
    Finding("MSE does worse than NLL", "nll", "mse", COSINE, Row("T5", "LLM-MSE", 34.9)),
    Finding("MSE does worse than no teacher", "lm-cosine", "mse", LM, Row("T5", "LLM-MSE", 34.9)),
    Finding(
        "α that falls does better than α that rises",
        "linear-dec",
        "linear-inc",
        Row("T5", "Linear Dec", 39.2),
        Row("T5", "Linear Inc", 38.1),
    ),
    Finding("WSD rate, no teacher", "lm-wsd", "lm-cosine", Row("T5", "0-alpha + WSD-LR", 38.2), LM),
    Finding("WSD rate, α = 1", "one-wsd-lr", "nll", Row("T5", "1-alpha + WSD-LR", 39.6), COSINE),
    Finding("WSD α, cosine rate", "wsd-cosine-lr", "nll", Row("T5", "WSD-alpha + Cos-LR", 38.6), COSINE),
    Finding(
        "WSD α, WSD rate",
        "wsd-wsd-lr",
        "one-wsd-lr",
        Row("T5", "WSD-alpha + WSD-LR", 40.7),
        Row("T5", "1-alpha + WSD-LR", 39.6),
    ),
    Finding(
        "α = 0.9 does better than 1", "alpha-0.9", "nll", Row("T10", "alpha=0.9", 39.1), Row("T10", "alpha=1.0", 38.3)
    ),
    Finding(
        "α = 0.9 does better than 0.5",
        "alpha-0.9",
        "alpha-0.5",
        Row("T10", "alpha=0.9", 39.1),
        Row("T10", "alpha=0.5", 38.3),
    ),
    Finding("τ = 0.5 does better than 1", "tau-0.5", "nll", Row("T9", "tau=0.5", 38.7), Row("T9", "tau=1.0", 38.3)),
    Finding("τ = 2 does better than 1", "tau-2", "nll", Row("T9", "tau=2.0", 38.7), Row("T9", "tau=1.0", 38.3)),
    Finding("τ = 5 does worse than 2", "tau-2", "tau-5", Row("T9", "tau=2.0", 38.7), Row("T9", "tau=5.0", 37.7)),
    Finding("τ = 10 does worse than 2", "tau-2", "tau-10", Row("T9", "tau=2.0", 38.7), Row("T9", "tau=10.0", 38.1)),
    Finding("one kept token is enough to help", "top-0.95-1", "lm-cosine", Row("T8", "top-0.95-1", 38.4), LM),
    Finding("five kept tokens help", "top-0.95-5", "lm-cosine", Row("T8", "top-0.95-5", 38.7), LM),
    Finding(
        "50 kept tokens do better than 100",
        "top-0.95-50",
        "nll",
        Row("T8", "top-0.95-50", 39.6),
        Row("T8", "top-0.95-100", 38.3),
    ),
    Finding("half of the mass helps", "top-0.5-100", "lm-cosine", Row("T8", "top-0.5-100", 38.5), LM),
    Finding(
        "half of the mass does better than 0.95",
        "top-0.5-100",
        "nll",
        Row("T8", "top-0.5-100", 38.5),
        Row("T8", "top-0.95-100", 38.3),
    ),
    Finding(
        "12 draws do better than the likeliest 12",
        "sampled-12",
        "top-12",
        Row("RS-KD", "12 draws", 2.35),
        Row("RS-KD", "top-12", 2.50),
    ),
    Finding(
        "12 draws do better than no teacher",
        "sampled-12",
        "lm-cosine",
        Row("RS-KD", "12 draws", 2.35),
        Row("RS-KD", "no teacher", 2.37),
    ),
    Finding(
        "distributions of an early teacher hurt", "lm-cosine", "online-early", LM, Row("T6", "LLM-Online-100B-L", 29.8)
    ),
    Finding("of a late one too, at α = 1", "lm-cosine", "online-late", LM, Row("T6", "LLM-Online-100B", 36.3)),
    Finding("of a late one help at α = 0.1", "online-late-tenth", "lm-cosine", Row("T6", "LLM-Online-100B*", 37.9), LM),
    Finding(
        "a student of half the size gains",
        "half-pd",
        "half-lm",
        Row("T11", "3.8B <- 9B", 44.9),
        Row("T11", "3.8B LM", 42.0),
    ),
    Finding(
        "a student of a tenth gains",
        "tenth-pd",
        "tenth-lm",
        Row("T11", "670M <- 9B", 33.8),
        Row("T11", "670M LM", 33.6),
    ),
    Finding("all of it together", "pd-star", "lm-cosine", Row("T13", "1.9B PD*", 41.2), LM),
)


def finished(results: Results) -> Results:
    """What is kept: runs that came to something."""
    runs = [run for run in results.runs if HELDOUT in run.metrics]
    named = {name for run in runs for name in (run.teacher, run.store, *run.further_stores)}
    return Results(
        runs=runs,
        teachers=[one for one in results.teachers if one.key in named],
        stores=[one for one in results.stores if one.identity in named],
    )


def verdict(results: Results, finding: Finding) -> tuple[str, str, str]:
    """Held-out loss of the better minus that of the worse, nats a token; the band of noise; what of both follows."""
    groups = {group.name: group for group in Comparison(results).groups if len(group.finished) >= SEEDS}
    if not {finding.better, finding.worse} <= groups.keys():
        return ("", "", UNMEASURED)
    found = Comparison(results, finding.worse).difference(groups[finding.better], HELDOUT)
    if found is None or found.band is None:
        raise SystemExit(f"nothing to compare {finding.better} and {finding.worse} by")
    word = "inside the noise" if found.is_noise else "**shows**" if found.value < 0 else "the opposite"
    return f"{found.value:+.4f}", f"{found.band:.4f}", word


def findings(results: Results) -> str:
    """The table of findings as markdown, with how many show."""
    rows = [(one.says, one.better, one.worse, _published(one), *verdict(results, one)) for one in FINDINGS]
    columns = ("finding", "better", "worse", "published", "Δ held-out loss", "noise ±", "here")
    words = ("shows", "noise", "opposite", UNMEASURED)
    shown, noise, opposite, unmeasured = (sum(word in row[-1] for row in rows) for word in words)
    note = f"Findings: {len(rows) - unmeasured}. Shown: {shown}. Inside the noise: {noise}. The opposite: {opposite}."
    if unmeasured:
        note += f" Not measured yet: {unmeasured}."
    return to_markdown("", [Table("", columns, tuple(rows))]).removeprefix("# \n\n") + f"\n{note}\n"


def _published(finding: Finding) -> str:
    tables = dict.fromkeys(row.table.removeprefix("T") for row in (finding.theirs, finding.than))
    unit = "nats" if "RS-KD" in tables else "%"
    where = "RS-KD" if unit == "nats" else f"Table{'s' * (len(tables) > 1)} {' and '.join(tables)}"
    return f"{finding.theirs.value} against {finding.than.value} {unit} ({where})"


def report(results: Results) -> str:
    """As `pdforge report results.json --format markdown` prints it."""
    comparison = Comparison(results)
    title = ", ".join(dict.fromkeys(run.recipe for run in results.runs))
    return to_markdown(title, tables(comparison, every_run=True))


def main(*files: str) -> None:
    kept = DOCS / "miniature" / "results.json"
    results = finished(merged([read_results(Path(file)) for file in ([kept] if kept.exists() else []) + list(files)]))
    page = DOCS / "miniature.md"
    head, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, tail = rest.split(END)
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(to_json(Comparison(results)), encoding="utf-8")
    (DOCS / "miniature" / "report.md").write_text(report(results), encoding="utf-8")
    page.write_text(f"{head}{BEGIN}{findings(results)}{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
