"""From a source that a user names to recipes: read, compose, validate, check."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from pdforge.diagnostics import Diagnostic, Place, Severity
from pdforge.errors import RecipeError, UsageError
from pdforge.recipe.compose import Composer, merge, read_override, split_variants
from pdforge.recipe.dump import dump_recipe
from pdforge.recipe.gallery import find_recipe, gallery_directory, gallery_names
from pdforge.recipe.models import Recipe
from pdforge.recipe.reader import Document, read_file
from pdforge.recipe.rules import check
from pdforge.recipe.suppress import Suppressions
from pdforge.recipe.sweep import named_runs, split_sweep
from pdforge.recipe.tree import FieldPath, Mapping, locate, plain
from pdforge.text import closest

__all__ = ["LoadedRecipe", "dump_recipe", "gallery_directory", "gallery_names", "load_document", "load_recipes"]


class LoadedRecipe(NamedTuple):
    """One recipe of a file: all of it, or one of its variants or runs of its sweep."""

    recipe: Recipe
    variant: str | None
    """Name of the variant, of the run of the sweep (`temperature-2-seed-0`), or of both (`pd-seed-0`)."""
    source: str
    """The file, as places name it."""
    warnings: list[Diagnostic]
    tree: Mapping
    """Where every value was written."""
    suppressions: Suppressions
    """What the comments of its files ignore; `warnings` are without it."""

    @property
    def name(self) -> str:
        """`quickstart`, or `quickstart-pd` for its variant `pd`."""
        return self.recipe.recipe + (f"-{self.variant}" if self.variant else "")

    def place(self, path: str | FieldPath) -> Place:
        """Where a field (`training.batch.micro`) was written; its nearest written parent for a default."""
        return locate(self.tree, tuple(path.split(".")) if isinstance(path, str) else path)[1]


def load_recipes(source: str, *, variants: Sequence[str] = (), overrides: Sequence[str] = ()) -> list[LoadedRecipe]:
    """Load a recipe file or a gallery recipe: one result a variant.

    Args:
        source: a path, or a gallery name such as `quickstart`.
        variants: which variants; all of them when empty.
        overrides: `FIELD=VALUE` texts that win over file and variant.

    Raises:
        RecipeError: findings, of all variants together, in order of place; warnings among them.
        UsageError: no such file or variant, or an override of another form.
    """
    path = find_recipe(source)
    name = _display(path)
    return load_document(read_file(path, name), path.parent, variants=variants, overrides=overrides)


def compose_recipe(source: str) -> Mapping:
    """A recipe file or a gallery recipe with what it extends, `variants` and `sweep` still in it; not validated.

    Raises:
        RecipeError, UsageError: as `load_recipes`.
    """
    path = find_recipe(source)
    return Composer().compose(read_file(path, _display(path)), path.parent)


def load_document(
    document: Document, directory: Path, *, variants: Sequence[str] = (), overrides: Sequence[str] = ()
) -> list[LoadedRecipe]:
    """Load recipes from a document that is read already; `directory` is what its `extends` is relative to.

    Raises:
        RecipeError, UsageError: as `load_recipes`.
    """
    composer = Composer()
    start = (str((directory / Path(document.name).name).resolve()),)
    composed = composer.compose(document, directory, start)
    body, variants_written = split_variants(composed)
    body, points = split_sweep(body)
    known = named_runs(variants_written, points, composed.entries["sweep"].key if points else composed.place)
    changes = [read_override(text) for text in overrides]
    suppressions = Suppressions.of(composer.documents.values())
    trees = {name: _merged(body, [*(known[name] if name else []), *changes]) for name in _chosen(known, variants)}
    results = {name: _validate(tree, suppressions) for name, tree in trees.items()}
    recipes = {name: recipe for name, (recipe, _) in results.items() if recipe is not None}
    if len(recipes) < len(results):
        raise RecipeError(_together({name: found for name, (_, found) in results.items()}))
    # only a whole file, as it stands, can say that a comment has nothing to ignore
    unused = [] if variants or overrides else suppressions.unused(document.name)
    return [
        LoadedRecipe(recipe, name, document.name, _ordered([*results[name][1], *unused]), trees[name], suppressions)
        for name, recipe in recipes.items()
    ]


def _validate(tree: Mapping, suppressions: Suppressions) -> tuple[Recipe | None, list[Diagnostic]]:
    """The recipe, unless there are errors, and the findings in order of place."""
    try:
        recipe = Recipe.model_validate(plain(tree))
    except ValidationError as error:
        from pdforge.recipe.messages import diagnose  # noqa: PLC0415 - only a recipe with mistakes needs words for them

        return None, _ordered([*suppressions.faults, *diagnose(error, tree)])
    found = _ordered([*suppressions.faults, *suppressions.apply(check(recipe, tree))])
    return (None if any(d.severity is Severity.ERROR for d in found) else recipe), found


def _merged(tree: Mapping, changes: Iterable[Mapping]) -> Mapping:
    for change in changes:
        merged = merge(tree, change)
        assert isinstance(merged, Mapping)
        tree = merged
    return tree


def _chosen(known: Collection[str], wanted: Sequence[str]) -> list[str | None]:
    for name in wanted:
        if name not in known:
            close = closest(name, known)
            has = f"its variants are {_some(known)}" if known else "this recipe has no variants"
            raise UsageError(f"no variant {name!r}", remedy=f"did you mean {close}?" if close else has)
    return list(dict.fromkeys(wanted)) or list(known) or [None]


def _together(findings: dict[str | None, list[Diagnostic]]) -> list[Diagnostic]:
    """Findings of all variants, each once; one that only some variants have says which."""
    seen: dict[Diagnostic, list[str]] = {}
    for variant, found in findings.items():
        for diagnostic in found:
            seen.setdefault(diagnostic, []).append(variant or "")
    return _ordered(
        d if len(names) == len(findings) else replace(d, message=f"{d.message} (variant {_some(names)})")
        for d, names in seen.items()
    )


def _some(names: Collection[str]) -> str:
    """The names, at most eight of them."""
    shown = list(names)[:8]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _ordered(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    return sorted(dict.fromkeys(diagnostics), key=lambda d: (d.place, d.code, d.field))


def _display(path: Path) -> str:
    """The path, relative to here where it is below."""
    try:
        return str(path.relative_to(Path.cwd())) if path.is_absolute() else str(path)
    except ValueError:
        return str(path)
