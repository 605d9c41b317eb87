"""A page in a real browser: headless Chromium, without a network. Skips, saying so, where there is none."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Shown:
    """What a browser made of a page."""

    dom: str
    """The document after its scripts ran."""
    console: list[str]
    """What was written to the console: errors, exceptions and refused requests as well."""


def open_page(page: Path, folder: Path, *, dark: bool = False, screenshot: Path | None = None) -> Shown:
    """Open a local page and wait until its scripts have settled; `folder` is for the browser's own files."""
    browser = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [
        f"--user-data-dir={folder / 'browser'}",
        "--window-size=1100,2400",
        "--hide-scrollbars",
        "--virtual-time-budget=10000",
    ]
    command += ["--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command += [f"--screenshot={screenshot}"] if screenshot else ["--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=240, check=True)
    return Shown(done.stdout, re.findall(r"CONSOLE\S*\] (.*)", done.stderr))
