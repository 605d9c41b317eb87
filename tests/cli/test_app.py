"""The frame of the command line: dispatch, help, exit codes, what it imports."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pdforge import __version__
from pdforge.cli.commands import COMMANDS
from tests.cli.pdforge_process import ROOT, pdforge


def test_help_lists_every_command() -> None:
    done = pdforge("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"│ {name} " in done.stdout
    assert pdforge().stdout == done.stdout or "Usage" in pdforge().stdout


@pytest.mark.parametrize("name", ["validate", "show", "explain", "recipes", "new", "schema"])
def test_help_of_a_command_has_an_example(name: str) -> None:
    done = pdforge(name, "--help")
    assert done.returncode == 0
    assert f"pdforge {name}" in done.stdout.replace(f"Usage: pdforge {name}", "")


def test_version() -> None:
    assert pdforge("--version").stdout == f"pdforge {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["valdate"], "valdate"), (["validate"], "SOURCE"), (["show", "--nope"], "--nope"), (["--nope"], "--nope")],
)
def test_wrong_usage_exits_with_2(arguments: list[str], said: str) -> None:
    done = pdforge(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    "module", [*(f"pdforge.cli.{name}" for name in COMMANDS), "pdforge.recipe.load", "pdforge.review.sources"]
)
def test_commands_do_not_import_torch(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "torchtitan", "transformers"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("name", "spared"),
    [("validate", {"typer", "rich"}), ("plan", {"typer", "rich", "subprocess", "zstandard"}), ("show", set())],
)
def test_short_commands_import_little(name: str, spared: set[str]) -> None:
    program = (
        "import sys; from pdforge.cli.app import run\n"
        "try: run([sys.argv[1], 'quickstart'])\n"
        "except SystemExit as end: assert not end.code, end\n"
        "print('MODULES', *sys.modules)"
    )
    command = [sys.executable, "-c", program, name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(done.stdout.rpartition("MODULES")[2].split())
    assert "pydantic.main" in modules
    assert not {"torch", "numpy", "submitit", "jinja2", "importlib.metadata", *spared} & modules


def test_validate_says_the_same_with_and_without_an_option_to_parse(tmp_path: Path) -> None:
    for source in ("quickstart", "recipes/pd_star.yaml", str(tmp_path), "no-such-recipe"):
        plain, parsed = pdforge("validate", source), pdforge("validate", source, "--format", "text")
        assert (plain.returncode, plain.stdout, plain.stderr) == (parsed.returncode, parsed.stdout, parsed.stderr)


@pytest.mark.parametrize("recipes", [["quickstart"], ["vanilla", "pd_star"], ["no-such-recipe"]])
def test_plan_says_the_same_with_and_without_an_option_to_parse(recipes: list[str]) -> None:
    plain, parsed = pdforge("plan", *recipes), pdforge("plan", *recipes, "--format", "text")
    assert (plain.returncode, plain.stdout, plain.stderr) == (parsed.returncode, parsed.stdout, parsed.stderr)


def test_pydantic_asks_the_module_that_finds_no_plugins() -> None:
    """Otherwise `quick.without_plugins` spares nothing, and should go."""
    program = (
        "import sys; from pdforge.cli import quick; quick.without_plugins()\n"
        "sys.modules['pydantic.plugin._loader'].get_plugins = lambda: print('asked') or ()\n"
        "import pydantic; pydantic.create_model('Any', x=int)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "asked" in done.stdout


@pytest.mark.parametrize(("arguments", "code"), [(["validate", "quickstart"], 0), (["validate", "-"], 1)])
def test_output_is_whole_and_the_exit_code_right(arguments: list[str], code: int) -> None:
    """Short commands end without taking the interpreter down, which must not cost the last lines of a file."""
    done = pdforge(*arguments, "--format", "json", stdin="recipe: x\n")
    assert done.returncode == code
    assert json.loads(done.stdout)["diagnostics" if code else "recipes"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_no_success() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "pdforge", "recipes"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["compile quickstart --out", "plan quickstart --out"])
def test_a_place_that_cannot_be_written_is_named(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = pdforge(*command.split(), "file/below", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "file/below" in done.stderr
    assert "help: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", ["show pd_star", "validate recipes --format text", "validate recipes"])
def test_a_closed_pipe_is_quiet(arguments: str) -> None:
    command = f"{sys.executable} -m pdforge {arguments} | head -c 1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_closed_streams_and_a_directory_that_is_gone_are_no_traceback(tmp_path: Path) -> None:
    program = f"{sys.executable} -m pdforge"
    closed = f"{program} recipes >&-; echo $? >&2; {program} validate nowhere 2>&- >&-; echo $? >&2"
    done = subprocess.run(["bash", "-c", closed], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.split() == ["0", "2"]
    gone = f"mkdir gone; cd gone; rmdir ../gone; {program} plan quickstart"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", gone], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "the current directory does not exist" in done.stderr


def test_interrupting_exits_with_130() -> None:
    program = (  # sets the handler, since a test run in the background may have SIGINT ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys; sys.argv[1:] = ['validate', '-']\n"
        "from pdforge.cli.app import main; main()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("recipe: x\n" * 20_000)  # more than a pipe holds: once it is taken, validate is reading
        process.stdin.flush()
        while process.poll() is None:  # a signal between two reads is noticed at the next one only
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)  # a second signal would hit the ending of a slow process
        assert process.returncode == 130
        assert "Traceback" not in process.stderr.read()
