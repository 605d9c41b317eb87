from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pdforge.plan.build import make_plans
from pdforge.plan.model import Plan
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes

RECIPE = """\
recipe: small
data:
  corpus: {kind: text, path: CORPUS}
  tokenizer: {kind: trained, vocabulary: 300}
  sequence_length: 64
  train_tokens: 20k
  validation_tokens: 1k
teacher:
  model:
    kind: pretrain
    architecture: {hidden: 64, ffn: 128, layers: 4, heads: 4}
    training:
      tokens: 10k
      batch: {global: 8, micro: 2}
      learning_rate_schedule: {schedule: wsd, warmup: 10%, decay: 20%}
      checkpoint: {every: 10}
  truncation: {top_p: 0.9, top_k: 20}
student:
  architecture: {hidden: 32, ffn: 64, layers: 2, heads: 4}
objective:
  alpha: {schedule: wsd, peak: 0.9, warmup: 10%, decay: 1%}
training:
  tokens: 12k
  batch: {global: 8, micro: 2}
  learning_rate_schedule: {schedule: wsd, warmup: 10%, decay: 20%}
  checkpoint: {every: 10}
variants:
  lm: {objective: {alpha: 0}}
  pd: {}
"""

CPU = Profile(name="local", device="cpu", processes_per_node=1)

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
FINETUNE = (
    f"finetune={{instructions: {{kind: python-stdlib, bytes: 100k}}, template: '{TEMPLATE}', instruction_tokens: 3k, "
    "text_tokens: 1k, training: {batch: {global: 4}}}"
)
"""Of conversations that every machine has; 15 steps of 4 sequences, of which a quarter is text."""

MakePlans = Callable[..., list[Plan]]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe file on a corpus of two text files."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text("the cat sat on the mat\n" * 50)
    (corpus / "b.txt").write_text("a dog lay on the rug\n" * 50)
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE.replace("CORPUS", str(corpus / "*.txt")))
    return file


@pytest.fixture
def plans(recipe: Path, tmp_path: Path) -> MakePlans:
    """Plans of the recipe with fields set, on a profile, below a root."""

    def make(*overrides: str, variants: tuple[str, ...] = ("pd",), profile: Profile = CPU) -> list[Plan]:
        loaded = load_recipes(str(recipe), variants=variants, overrides=overrides)
        return make_plans(loaded, profile, tmp_path / "runs")

    return make
