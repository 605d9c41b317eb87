"""Stages that agree, said once: a sweep has dozens of runs and few kinds of training."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple, TypeVar

from pdforge.plan.page import PlanPage, Run, Step

MANY = 6
"""Runs of which each has a row of its own; of more, those that agree share one."""
ONE_OF_SEVERAL = "×: so many stages that agree; what stands there is of one of them"

T = TypeVar("T", bound=Hashable)


class Group(NamedTuple):
    """One stage, or several that agree in what is said of them."""

    steps: tuple[Step, ...]

    @property
    def title(self) -> str:
        """`train pd`, or `train × 3 (4–6)`, by their numbers in the table of stages."""
        return self.steps[0].title if len(self.steps) == 1 else f"{self.kind} ({self.numbers})"

    @property
    def kind(self) -> str:
        """`train pd`, or `train × 3` where the numbers stand beside it."""
        if len(self.steps) == 1:
            return self.steps[0].title
        words = dict.fromkeys(step.title.partition(" ")[0] for step in self.steps)
        return f"{' and '.join(words)} × {len(self.steps)}"

    @property
    def named(self) -> str:
        """`train 1.9b, 3.8b`: by name, if they are not too many."""
        if len(self.steps) > MANY:
            return self.title
        titles = [step.title for step in self.steps]
        first = titles[0].partition(" ")[0]
        if all(title.startswith(f"{first} ") for title in titles):
            return f"{first} {', '.join(title.partition(' ')[2] for title in titles)}"
        return ", ".join(titles)

    @property
    def numbers(self) -> str:
        """`4–6, 9`."""
        return spans(step.number for step in self.steps)

    @property
    def directory(self) -> str:
        """Where they lie: the pattern that fits all."""
        parts = zip(*(step.directory.split("/") for step in self.steps), strict=True)
        return "/".join(map(_pattern, parts))


def _pattern(names: Sequence[str]) -> str:
    """The name, or what all begin with and `*`."""
    letters = zip(*names, strict=False)
    start = "".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, letters))
    return names[0] if len(set(names)) == 1 else f"{start}*"


def alike(steps: Iterable[Step], of: Callable[[Step], T]) -> list[tuple[T, Group]]:
    """Steps by what is said of them, in the order of the first of each group."""
    found: dict[T, list[Step]] = {}
    for step in steps:
        found.setdefault(of(step), []).append(step)
    return [(said, Group(tuple(group))) for said, group in found.items()]


def rows(page: PlanPage, steps: Iterable[Step], of: Callable[[Step], T]) -> list[tuple[T, Group]]:
    """`alike` of one kind of stage, but each step by itself in a plan of few runs."""
    if len(page.runs) > MANY:
        return [(said, group) for (_, said), group in alike(steps, lambda step: (step.kind, of(step)))]
    return [(of(step), Group((step,))) for step in steps]


def training_of(page: PlanPage, run: Run) -> Step:
    """The stage that trains a run's student."""
    return next(step for step in page.stages if step.directory == f"{run.directory}/train")


def spans(numbers: Iterable[int]) -> str:
    """`1, 3–6`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][-1] == number - 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    return ", ".join("–".join(map(str, span)) for span in found)
