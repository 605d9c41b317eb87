"""docs/mistakes.md says what pdforge really says. Written anew by `PDFORGE_UPDATE_SNAPSHOTS=1 pytest` on this file."""

from __future__ import annotations

import os
from pathlib import Path

from pdforge.cli.render.markdown import code, escape, table
from tests.recipe.sound import findings, spoil
from tests.recipe.test_mistakes import MISTAKES

PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"
BEGIN, END = "<!-- written by tests/recipe/test_mistakes_page.py -->\n", "<!-- end -->\n"

SHOWN = [
    *("unknown key", "far-off key", "alias's own name", "a tag that is a key", "repeated key"),
    *("missing", "missing in a kind", "kind", "no kind", "schedule", "no schedule", "word for schedule", "enum"),
    *("top_p", "top_k beyond a byte", "negative", "not a number", "not finite", "word for number", "truth for number"),
    *("half a token", "no count", "bad percentage", "YAML 1.1 yes", "number for text", "octal", "tab", "anchor", "tag"),
    *("colon in text", "extends nothing", "variant's name"),
]


def rows() -> list[tuple[str, str]]:
    """The changed passage and the finding, of each mistake that the page shows."""
    result = []
    for name in SHOWN:
        before, planted, *_ = MISTAKES[name]
        text = spoil(before, planted).replace("¦", "")
        (found,) = findings(text)
        written = text.split("\n")[found.place.line - 1].strip()
        helping = f"<br>{escape(found.help)}" if found.help else ""
        result.append((code(written), f"{found.place} {found.code}: {escape(found.message)}{helping}"))
    return result


def test_the_page_shows_thirty_mistakes_and_what_pdforge_says() -> None:
    assert len(set(SHOWN)) >= 30
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    written = f"{before}{BEGIN}{table(('written', 'pdforge'), rows())}{END}{after}"
    if os.environ.get("PDFORGE_UPDATE_SNAPSHOTS"):
        PAGE.write_text(written, encoding="utf-8")
        page = written
    assert page == written
