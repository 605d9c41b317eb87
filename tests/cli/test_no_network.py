"""`validate` and `plan` ask nobody: neither they nor what they start look up a name or open a connection."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.pdforge_process import ROOT, pdforge

WATCHED = """\
import os, socket

def refused(*arguments, **named):
    with open(os.environ["ASKED"], "a") as file:
        print(arguments, file=file)
    raise OSError("no network in this test")

socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refused

class Socket(socket.socket):
    def connect(self, address):
        refused(address)

    connect_ex = connect

socket.socket = Socket
"""


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """Environment of a process that writes down whom it asks, and is refused."""
    (tmp_path / "sitecustomize.py").write_text(WATCHED)
    return {"ASKED": str(tmp_path / "asked"), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", "pd_star", "paper/sizes", "beyond/gemma", "quickstart_full"),
        ("plan", "pd_star", "paper/sizes", "beyond/two_teachers"),
        ("plan", "quickstart_full"),
    ],
    ids=["validate", "plan", "plan with an evaluation"],
)
def test_nobody_is_asked(arguments: tuple[str, ...], watched: dict[str, str], tmp_path: Path) -> None:
    done = pdforge(*arguments, cwd=tmp_path, **watched)
    assert done.stdout, done.stderr
    asked = Path(watched["ASKED"])
    assert not asked.exists(), asked.read_text()


@pytest.mark.parametrize(
    "code",
    ["socket.getaddrinfo('huggingface.co', 443)", "socket.socket().connect(('192.0.2.1', 443))"],
)
def test_who_asks_is_seen(code: str, watched: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import socket; {code}"], env=os.environ | watched, check=False, capture_output=True
    )
    assert done.returncode == 1
    assert Path(watched["ASKED"]).read_text()
