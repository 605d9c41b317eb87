"""The registry: a rule is a stable code, a text that explains it with its evidence, and a check."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pdforge.diagnostics import Diagnostic, Severity
from pdforge.recipe.models import Recipe
from pdforge.recipe.tree import Node, locate, path_of


class Finding(NamedTuple):
    """What a check yields."""

    field: str
    """Dotted path of the field to point at."""
    message: str
    """What is wrong; quotes the values."""
    help: str = ""
    """What would be right."""


Check = Callable[[Recipe], Iterator[Finding]]


class Topic(NamedTuple):
    """Something that a diagnostic's code stands for; a rule, where it has a check."""

    code: str
    severity: Severity
    title: str
    explanation: str
    """One paragraph: why, and what says so."""
    check: Check | None = None
    """Finds it in a whole, well-typed recipe."""


RULES: dict[str, Topic] = {}
"""Every rule by its code. A code is never given to another rule."""


def rule(code: str, severity: Severity, title: str) -> Callable[[Check], Check]:
    """Register a check under its code; its docstring is the explanation."""

    def register(check: Check) -> Check:
        assert code not in RULES, f"{code} is taken"
        assert check.__doc__, f"{code} is not explained"
        RULES[code] = Topic(code, severity, title, " ".join(check.__doc__.split()), check)
        return check

    return register


def check(recipe: Recipe, tree: Node) -> list[Diagnostic]:
    """Findings of all rules on a recipe, at the places where `tree` says its values were written."""
    return [
        Diagnostic(
            each.code,
            each.severity,
            finding.message,
            locate(tree, path_of(finding.field))[1],
            finding.help,
            finding.field,
        )
        for each in RULES.values()
        if each.check is not None
        for finding in each.check(recipe)
    ]


def broken(recipe: Recipe) -> str:
    """The message of the first rule that a recipe breaks so that it cannot work; empty: it breaks none."""
    errors = (each.check for each in RULES.values() if each.check is not None and each.severity is Severity.ERROR)
    return next((finding.message for check in errors for finding in check(recipe)), "")
