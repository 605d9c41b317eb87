"""A small sound recipe, and ways to spoil it."""

from __future__ import annotations

from pathlib import Path

from pdforge.diagnostics import Diagnostic, Severity
from pdforge.errors import RecipeError
from pdforge.recipe.load import LoadedRecipe, load_document
from pdforge.recipe.reader import read_text

SOUND = """\
recipe: small
description: A sound recipe
data:
  corpus: {kind: python-stdlib}
  tokenizer: {kind: trained, vocabulary: 2048}
  sequence_length: 256
  train_tokens: 1.5M
  validation_tokens: 64k
teacher:
  model:
    kind: pretrain
    architecture: {hidden: 256, ffn: 704, layers: 6, heads: 4, kv_heads: 2}
    training:
      batch: {global: 16, micro: 8}
      checkpoint: {every: 50}
  truncation: {top_p: 0.95, top_k: 50}
student:
  architecture: {hidden: 128, ffn: 352, layers: 4, heads: 4, kv_heads: 2}
objective:
  temperature: 1.0
  alpha: {schedule: wsd, peak: 0.9, warmup: 10%, decay: 1%}
training:
  tokens: 600k
  batch: {global: 16, micro: 8}
  checkpoint: {every: 50, keep: 2}
"""


def spoil(before: str, after: str, text: str = SOUND) -> str:
    """The sound recipe with one passage, which must occur once, replaced."""
    assert text.count(before) == 1, f"{before!r} occurs {text.count(before)} times"
    return text.replace(before, after)


def load(text: str, directory: Path = Path(), **options: list[str]) -> list[LoadedRecipe]:
    """Load recipes from text; places call it `recipe.yaml`."""
    return load_document(read_text(text, "recipe.yaml"), directory, **options)


def findings(text: str, directory: Path = Path(), **options: list[str]) -> list[Diagnostic]:
    """Everything found in a recipe, errors or warnings."""
    try:
        return [warning for loaded in load(text, directory, **options) for warning in loaded.warnings]
    except RecipeError as error:
        found = error.diagnostics
    assert any(d.severity is Severity.ERROR for d in found)
    return found


def place_of(passage: str, text: str) -> tuple[int, int]:
    """Line and column of a passage that occurs once."""
    assert text.count(passage) == 1, f"{passage!r} occurs {text.count(passage)} times"
    before = text[: text.index(passage)]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
