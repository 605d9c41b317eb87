"""docs/walkthrough.md, from top to bottom: files are written, commands run, and what they print is what the page shows.

On the page `…` stands for anything. Hashes, and numbers with a decimal point or comma, count as equal whatever they
are: they follow from the machine's own text and speed. So do spaces and ends of lines, since a path may be long.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "walkthrough.md"
TIMEOUT_S = 600
SHELL = 'pdforge() { "$PYTHON" -m pdforge "$@"; }\n'


def steps() -> list[tuple[str, str]]:
    """In the page's order: `write` and a file, its name in its first line; or a command, and what it prints."""
    found = []
    for kind, block in re.findall(r"```(yaml|console)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        if kind == "yaml":
            found.append(("write", block))
        else:
            found += re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    return found


def alike(text: str) -> str:
    text = re.sub(r"\b[0-9a-f]{12}\b", "ID", text)
    text = re.sub(r"[+-]?\d[\d,]*\.\d+(e[+-]\d+)?[kM]?|\d{1,3}(,\d{3})+", "#", text)
    return " ".join(text.split())


def is_shown(printed: str, page: str) -> bool:
    return re.fullmatch(re.escape(alike(page)).replace("…", ".*"), alike(printed)) is not None


@pytest.mark.slow
def test_every_command_prints_what_the_page_shows(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PDFORGE_")}
    env |= {"COLUMNS": "100", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    env["PYTHONPATH"] = str(PAGE.parents[1])
    commands = 0
    for step, text in steps():
        if step == "write":
            (tmp_path / text.split("\n", 1)[0].removeprefix("# ")).write_text(text, encoding="utf-8")
            continue
        command = ["bash", "-c", SHELL + step]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        printed = done.stdout + done.stderr
        assert is_shown(printed, text), f"$ {step}\n{printed}\n-- the page --\n{text}"
        commands += 1
    assert commands >= 10


def test_comparing_sees_a_difference() -> None:
    assert is_shown("lm  57.5k  5.0192\nmore\n", "lm 57.6k   5.1\n…\n")
    assert is_shown("first-lm-7c351b2dc89f  done", "first-lm-2b2d33eb7b80 done")
    assert not is_shown("lm  57.5k  5.0192\n", "pd  57.5k  5.0192\n")
    assert not is_shown("1 error, no warnings\n", "2 errors, no warnings\n")
    assert not is_shown("a\nb\n", "a\n")
