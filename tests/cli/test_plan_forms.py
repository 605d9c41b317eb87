"""The page of a plan in its four forms: snapshots of `pd_star`, the HTML in a browser, and what must never be markup.

A change that is meant: `PDFORGE_UPDATE_SNAPSHOTS=1 pytest tests/cli/test_plan_forms.py`, and read the diff.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.browser import open_page
from tests.cli.pdforge_process import ROOT, pdforge

SNAPSHOTS = Path(__file__).parent / "snapshots"
CLUSTER = """\
h100:
  executor: slurm
  device: cuda
  nodes: 8
  processes_per_node: 8
  gpus_per_node: 8
  walltime: 12h
  gpu: H100
  price: 2.5
  disk: 100TB
  disk_read: 40GB
  disk_write: 20GB
"""
PLAN = ("plan", "pd_star", "--cluster", "h100", "--root", "runs")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a cluster profile, and a corpus for the gallery's recipes."""
    (tmp_path / "clusters.yaml").write_text(CLUSTER)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n', mtime=0))
    return tmp_path


def masked(text: str, here: Path) -> str:
    """Without what changes with the code and from machine to machine."""
    for path, name in ((str(ROOT), "CHECKOUT"), (str(here), "HERE")):
        text = text.replace(path, name).replace(path.replace("_", r"\_"), name)
    return re.sub(r"\b[0-9a-f]{12}\b", "0" * 12, text)


def planned(form: str, here: Path, *more: str) -> str:
    done = pdforge(*PLAN, *more, "--format", form, cwd=here, XDG_CONFIG_HOME=str(here))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_snapshot(form: str, here: Path) -> None:
    printed = masked(planned(form, here), here)
    snapshot = SNAPSHOTS / f"plan.{form}"
    if os.environ.get("PDFORGE_UPDATE_SNAPSHOTS"):
        snapshot.write_text(printed, encoding="utf-8")
    assert printed == snapshot.read_text(encoding="utf-8")


def test_the_text_fits_a_hundred_columns_and_has_no_colour_of_its_own(here: Path) -> None:
    printed = planned("text", here)
    assert max(map(len, printed.splitlines())) <= 100
    assert "\x1b" not in printed
    assert "58.6 PB" in printed
    assert "14.8 TB" in printed


def test_json_has_every_figure_of_the_page(here: Path) -> None:
    said = json.loads(planned("json", here))
    [page] = said["pages"]
    assert [stage["title"] for stage in page["stages"]][2:] == ["train 1.9b", "train 3.8b", "train 6.8b"]
    assert {stage["steps"] for stage in page["stages"][2:]} == {11_921}
    assert page["total"]["cost"] > 0
    assert said["plans"][0]["name"] == "pd_star"
    assert json.loads(pdforge(*PLAN, "--json", cwd=here, XDG_CONFIG_HOME=str(here)).stdout) == said


@pytest.mark.parametrize(
    ("form", "finding", "remedy"),
    [
        ("text", "warning[PD156]: zai-org/glm-4-9b-hf is not pinned", "help: add `revision:`"),
        ("markdown", "**warning PD156** at", r"- help: add \`revision:\`"),
        ("html", "<strong>warning PD156</strong> zai-org/glm-4-9b-hf is not pinned", "<p>add `revision:`"),
    ],
)
def test_every_form_has_the_findings_with_their_remedies(form: str, finding: str, remedy: str, here: Path) -> None:
    printed = planned(form, here, "-v", "1.9b", "--set", "teacher.model.revision=null")
    assert printed.count(finding) == 1
    assert remedy in printed[printed.index(finding) :]


def test_two_recipes_side_by_side(here: Path) -> None:
    arguments = ("plan", "vanilla", "pd_star", "-v", "pd", "-v", "1.9b", "--cluster", "h100", "--root", "runs")
    shown = pdforge(*arguments, cwd=here, XDG_CONFIG_HOME=str(here))
    assert shown.returncode == 0, shown.stderr
    rows = {line[3:].split("  ")[0]: line for line in shown.stdout.splitlines() if line}
    header = next(line for line in shown.stdout.splitlines() if "vanilla pd" in line)
    assert header.split() == ["figure", "vanilla", "pd", "pd_star", "1.9b"]
    assert rows["entries a token"].split() == ["≠", "entries", "a", "token", "37.0", "22.3"]
    assert rows["steps"].split() == ["steps", "11,921", "11,921"]
    assert rows["τ"].startswith("≠")
    both = json.loads(pdforge(*arguments, "--json", cwd=here, XDG_CONFIG_HOME=str(here)).stdout)
    assert [page["name"] for page in both["pages"]] == ["vanilla", "pd_star"]
    refused = pdforge(*arguments, "--out", "saved", cwd=here, XDG_CONFIG_HOME=str(here))
    assert refused.returncode == 2
    assert "one recipe" in refused.stderr


NASTY = "<script>alert(1)</script> | `x` *y* & [z](http://w) {{ 7*7 }}"


def test_what_a_recipe_says_is_never_markup(here: Path) -> None:
    arguments = (*PLAN, "-v", "1.9b", "--set", f"description={json.dumps(NASTY)}")
    page = pdforge(*arguments, "--format", "html", cwd=here, XDG_CONFIG_HOME=str(here)).stdout
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7*7 }}" in page
    text = pdforge(*arguments, "--format", "markdown", cwd=here, XDG_CONFIG_HOME=str(here)).stdout
    assert r"\<script\>alert(1)\</script\> \| \`x\` \*y\* \& \[z\]" in text


class Links(HTMLParser):
    """Everything that a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        fetches = {"src", "href", "srcset", "data", "action", "xlink:href"}
        if tag in ("script", "link", "iframe", "object", "embed", "img"):
            self.found.append(tag)
        self.found += [name for name, _ in attributes if name in fetches or name.startswith("on")]


def test_the_html_fetches_and_runs_nothing(here: Path) -> None:
    page = planned("html", here)
    links = Links()
    links.feed(page)
    assert links.found == []
    assert "url(" not in page
    assert "@import" not in page


def test_in_a_browser(here: Path) -> None:
    """Three curves drawn and no message on the console; light and dark as the reader prefers."""
    image = pytest.importorskip("PIL.Image")
    file = here / "plan.html"
    file.write_text(planned("html", here), encoding="utf-8")
    page = open_page(file, here)
    assert len(re.findall(r'<polyline class="curve" points="[\d., ]+"', page.dom)) == 3
    assert page.console == []
    for dark, paper, curve in ((False, (255, 255, 255), (10, 102, 194)), (True, (20, 24, 28), (108, 178, 255))):
        shot = here / f"{dark}.png"
        open_page(file, here, dark=dark, screenshot=shot)
        with image.open(shot) as picture:
            pixels = picture.convert("RGB")
        assert pixels.getpixel((2, 2)) == paper
        drawn = sum(number for number, colour in pixels.getcolors(1 << 24) if colour == curve)
        assert 500 < drawn < pixels.width * pixels.height / 100
