"""Rules: what the types cannot say. One file a subject; importing this package registers them all."""

from __future__ import annotations

from pdforge.recipe.rules.registry import RULES, Finding, Rule, check

__all__ = ["RULES", "Finding", "Rule", "check"]
