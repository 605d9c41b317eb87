"""A picture of the HTML report, as headless Chromium shows it.

    python scripts/screenshot.py docs/report.png RECIPE|RUN|RESULTS...

What follows the picture's name goes to `pdforge report`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest

from tests.browser import open_page


def main(picture: str, *sources: str) -> None:
    command = [sys.executable, "-m", "pdforge", "report", *sources, "--format", "html"]
    html = subprocess.run(command, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        page.write_bytes(html)
        try:
            shown = open_page(page, Path(folder), screenshot=Path(picture).absolute())
        except pytest.skip.Exception as missing:
            raise SystemExit(str(missing)) from missing
    if shown.console:
        raise SystemExit("\n".join(shown.console))


if __name__ == "__main__":
    main(*sys.argv[1:])
