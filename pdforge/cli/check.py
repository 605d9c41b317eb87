"""What `pdforge validate` does once its arguments are read. Imports neither typer nor rich: `pdforge.cli.quick`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pdforge.cli.render.plain import plural
from pdforge.diagnostics import Diagnostic, Severity
from pdforge.errors import ExitCode, RecipeError, UsageError
from pdforge.recipe.gallery import is_recipe
from pdforge.recipe.load import LoadedRecipe, load_document, load_recipes
from pdforge.recipe.reader import LARGEST_FILE, read_text
from pdforge.text import closest

STDIN = "<stdin>"


class Format(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    CONCISE = "concise"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"
    MARKDOWN = "markdown"


@dataclass
class _Outcome:
    """What validating several sources found."""

    recipes: list[LoadedRecipe] = field(default_factory=list)
    findings: list[Diagnostic] = field(default_factory=list)
    unreadable: list[UsageError] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def count(self, severity: Severity) -> int:
        return sum(d.severity is severity for d in self.findings)


def check_sources(
    sources: Iterable[str],
    *,
    variants: Iterable[str] = (),
    overrides: Iterable[str] = (),
    output: Format = Format.TEXT,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    exit_zero: bool = False,
) -> ExitCode:
    """Check recipes and print the findings.

    Args:
        sources: files, directories, globs, gallery names, or `-` for standard input.
        variants: only these; all where there are none.
        overrides: `FIELD=VALUE` texts.
        output: how findings are printed.
        select: only codes that begin with one of these; all where there are none.
        ignore: no codes that begin with one of these.
        exit_zero: errors do not count.

    Raises:
        UsageError: a directory or a glob holds no recipe; no code begins so.
    """
    for code in (*select, *ignore):
        _require_known(code)
    outcome = _Outcome()
    for source in _expand(sources):
        try:
            outcome.recipes += _load(source, variants, overrides, outcome)
        except RecipeError as error:
            outcome.findings += error.diagnostics
        except UsageError as error:
            outcome.unreadable.append(error)
    outcome.findings += [warning for recipe in outcome.recipes for warning in recipe.warnings]
    wanted = {d for d in outcome.findings if _wanted(d.code, select, ignore)}
    outcome.findings = sorted(wanted, key=lambda d: (d.place, d.code, d.field, d.message))
    _print(outcome, output)
    if outcome.unreadable:
        from pdforge.cli.render.error import print_error  # noqa: PLC0415 - rich is slow to load

        for unreadable in outcome.unreadable:
            print_error(unreadable)
        return ExitCode.COULD_NOT_RUN
    return ExitCode.FINDINGS if outcome.count(Severity.ERROR) and not exit_zero else ExitCode.OK


def _load(source: str, variants: Iterable[str], overrides: Iterable[str], outcome: _Outcome) -> list[LoadedRecipe]:
    if source != "-":
        return load_recipes(source, variants=list(variants), overrides=list(overrides))
    given = sys.stdin.buffer.read(LARGEST_FILE + 1)
    if len(given) > LARGEST_FILE:
        raise UsageError("stdin is larger than 256 kB", remedy="a recipe is a short YAML file")
    try:
        text = given.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin is not UTF-8 text (byte {error.start})") from error
    outcome.sources[STDIN] = text
    return load_document(read_text(text, STDIN), Path(), variants=list(variants), overrides=list(overrides))


def _expand(sources: Iterable[str]) -> list[str]:
    """Directories to the recipes below them and globs to what they match; everything else as it is.

    Raises:
        UsageError: a directory or a glob holds no recipe.
    """
    files: list[str] = []
    for source in sources:
        path = Path(source)
        is_glob = any(character in source for character in "*?[") and not path.exists()
        if is_glob or path.is_dir():
            found = _matches(path) if is_glob else path.rglob("*.y*ml")
            recipes = sorted(str(file) for file in found if is_recipe(file))
            if not recipes:
                raise UsageError(f"no recipes in {source}", remedy="recipes end in .yaml")
            files += recipes
        else:
            files.append(source)
    return list(dict.fromkeys(files))


def _matches(pattern: Path) -> list[Path]:
    anchor = Path(pattern.anchor)
    try:
        return list(anchor.glob(str(pattern.relative_to(anchor))))
    except ValueError as error:
        raise UsageError(
            f"{pattern} is no pattern of file names: {error}", remedy="`**` is a whole folder name"
        ) from error


def _require_known(code: str) -> None:
    from pdforge.recipe.rules import TOPICS  # noqa: PLC0415 - for these options only

    if not any(topic.startswith(code) for topic in TOPICS):
        close = closest(code, TOPICS)
        hint = f"did you mean {close}? " if close else ""
        raise UsageError(f"no code is or begins with {code!r}", remedy=f"{hint}`pdforge explain` lists them all")


def _wanted(code: str, select: Iterable[str], ignore: Iterable[str]) -> bool:
    return (not select or code.startswith(tuple(select))) and not code.startswith(tuple(ignore))


def _print(outcome: _Outcome, output: Format) -> None:
    """Print findings in a format; each loads only what it needs, since the whole command is to be quick."""
    if output is Format.TEXT:
        _print_text(outcome)
    else:
        sys.stdout.write(_rendered(outcome, output))


def _print_text(outcome: _Outcome) -> None:
    from pdforge.cli.render.text import print_diagnostics  # noqa: PLC0415

    print_diagnostics(sys.stdout, outcome.findings, outcome.sources)
    sys.stdout.write(f"{_summary(outcome)}\n")


def _rendered(outcome: _Outcome, output: Format) -> str:
    match output:
        case Format.GITHUB:
            from pdforge.cli.render.github import github  # noqa: PLC0415

            return github(outcome.findings, outcome.unreadable)
        case Format.SARIF:
            from pdforge.cli.render.sarif import sarif  # noqa: PLC0415

            return sarif(outcome.findings, outcome.unreadable)
        case Format.MARKDOWN:
            from pdforge.cli.render.markdown import markdown  # noqa: PLC0415

            return markdown(outcome.findings, _summary(outcome))
        case Format.JSON:
            from pdforge.cli.render.as_json import diagnostic_values, to_json  # noqa: PLC0415

            recipes = [{"name": r.name, "variant": r.variant, "source": r.source} for r in outcome.recipes]
            found = [diagnostic_values(d) for d in outcome.findings]
            return to_json({"recipes": recipes, "diagnostics": found}) + "\n"
        case _:
            from pdforge.cli.render.concise import concise  # noqa: PLC0415

            return concise(outcome.findings)


def _summary(outcome: _Outcome) -> str:
    errors, warnings = outcome.count(Severity.ERROR), outcome.count(Severity.WARNING)
    names = f": {', '.join(r.name for r in outcome.recipes)}" if 0 < len(outcome.recipes) <= 8 else ""
    sound = f"{plural(len(outcome.recipes), 'sound recipe')}{names}"
    return f"{plural(errors, 'error')}, {plural(warnings, 'warning')}; {sound}"
