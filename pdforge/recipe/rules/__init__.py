"""Rules: what the types cannot say. One file a subject; importing this package registers them all.

Codes: PD0xx the language itself, PD100-149 errors (it cannot work), PD150-199 warnings (it works, and is likely a
mistake), of which PD170-179 need a cluster profile or earlier runs (PD173 is an error).
"""

from __future__ import annotations

from pdforge.recipe.rules import batch, distillation, evaluation, online, parallelism, provenance, shape
from pdforge.recipe.rules.language import LANGUAGE
from pdforge.recipe.rules.planning import PLANNING
from pdforge.recipe.rules.registry import RULES, Finding, Topic, broken, check

TOPICS: dict[str, Topic] = {**LANGUAGE, **dict(sorted(RULES.items())), **PLANNING}
"""Everything that has a code, for `explain`."""

__all__ = [
    "LANGUAGE",
    "PLANNING",
    "RULES",
    "TOPICS",
    "Finding",
    "Topic",
    "batch",
    "broken",
    "check",
    "distillation",
    "evaluation",
    "online",
    "parallelism",
    "provenance",
    "shape",
]
