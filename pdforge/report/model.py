"""What runs came to, as data: the source of every form of a report, and a file that one can be made from again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pdforge.recipe.models import Expectation

HELDOUT = "heldout_loss"
"""The metric that every run has: mean negative log-likelihood of the validation split, nats a token."""

State = Literal["done", "running", "stopped", "failed", "waiting", "unknown"]

# A file may hold any number: within these bounds nothing that is computed of them leaves what a float holds.
Count = Annotated[int, Field(ge=0, le=10**18)]
Amount = Annotated[float, Field(ge=0, le=1e150)]
Number = Annotated[float, Field(ge=-1e150, le=1e150)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Metric(_Part):
    """One measured number."""

    value: Number
    error: Amount | None = None
    """Standard error, where the measurement has one."""


class Curve(_Part):
    """Values over training."""

    tokens: list[Count] = []
    values: list[Number] = []

    @model_validator(mode="after")
    def _are_points(self) -> Self:
        _require_pairs("tokens", self.tokens, self.values)
        return self


class Schedule(_Part):
    """α, τ or the learning rate over the steps of a run."""

    name: str
    steps: list[Count]
    values: list[Number]

    @model_validator(mode="after")
    def _are_points(self) -> Self:
        _require_pairs("steps", self.steps, self.values)
        return self


def _require_pairs(name: str, places: Sequence[int], values: Sequence[float]) -> None:
    if len(places) != len(values):
        raise PydanticCustomError("pairs", f"{len(places)} {name}, but {len(values)} values")


class RunResult(_Part):
    """One student. None: not known (yet)."""

    name: str
    """Unique in a report."""
    recipe: str
    group: str
    """Runs that differ in their seed only have one group."""
    configuration: str | None = None
    """Names all that decides its results except the seed: what has another is no repetition."""
    seed: int
    directory: str
    """Relative to the storage root."""
    state: State
    """Of its training; how the stages after it stand shows in what metrics there are."""
    is_baseline: bool
    """α is 0 throughout: language modelling only."""
    parameters: Count | None
    steps: Count | None
    """Planned, as are the tokens."""
    tokens: Count | None
    flops_per_token: Amount | None
    """Of the student's training; 0 is not known either."""
    teacher_flops: Amount | None
    """Of the teacher's pass over what the student reads of it; 0 without a teacher."""
    teacher: str | None
    """`TeacherResult.key`."""
    data: str | None = None
    """Identity of the token store: only where it is the same are held-out losses of the same text."""
    store: str | None
    """`StoreResult.identity` of the logit store that it reads."""
    further_stores: list[str] = []
    """The same of its further teachers."""
    metrics: dict[str, Metric] = {}
    """By name: `heldout_loss`, `ece`, tasks (in percent)."""
    at_steps: dict[int, dict[str, Metric]] = {}
    """What was measured before the end."""
    tokens_per_second: Amount | None = None
    """Of the whole job, without its start; the last attempt's. 0 is not known either."""
    device: Literal["cpu", "cuda"] = "cpu"
    device_hours: Amount | None = None
    """Of all attempts of its training: processes times the time that they lived."""
    expect: tuple[Expectation, ...] = ()
    loss: Curve = Curve()
    """Language-modelling loss of the batches, means over as many rows as it takes to have few points."""
    heldout: Curve = Curve()
    schedules: list[Schedule] = []

    @property
    def done_tokens(self) -> int:
        """Trained on so far."""
        return max((*self.loss.tokens[-1:], *self.heldout.tokens[-1:]), default=0)


class TeacherResult(_Part):
    """One teacher."""

    key: str
    name: str
    """`teacher`, or which one where there are several."""
    parameters: Count | None
    steps: Count | None
    tokens: Count | None
    heldout_loss: Number | None
    tokens_per_second: Amount | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    device_hours: Amount | None = None
    heldout: Curve = Curve()


class StoreResult(_Part):
    """One logit store that is whole."""

    identity: str
    kept_count: Amount | None
    """Mean entries of a position."""
    kept_mass: Amount | None
    """Mean probability that they hold."""
    positions: Count | None
    bytes: Count | None


class Results(_Part):
    """The results of runs."""

    format: Literal["pdforge-results-1"] = "pdforge-results-1"
    runs: list[RunResult]
    teachers: list[TeacherResult] = []
    stores: list[StoreResult] = []


def merged(parts: Sequence[Results]) -> Results:
    """Results of several files as one report's: each run once, by its directory.

    Of a run in several parts the last that has a result counts. Where runs of several recipes have one name, each gets
    its recipe's in front of it, as in a report of both; where that is not enough it has its directory's.
    """
    runs: dict[str, RunResult] = {}
    for run in (run for part in parts for run in part.runs):
        if run.directory not in runs or HELDOUT in run.metrics:
            runs[run.directory] = run
    return Results(
        runs=_apart(list(runs.values())),
        teachers=list({one.key: one for part in parts for one in part.teachers}.values()),
        stores=list({one.identity: one for part in parts for one in part.stores}.values()),
    )


def _apart(runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs with names of their own, and groups whose runs have one configuration."""
    of_recipes = _renamed(runs, [(f"{run.recipe}-{run.name}", f"{run.recipe}-{run.group}") for run in runs])
    return _renamed(of_recipes, [(run.directory, f"{run.group}-{run.configuration}") for run in of_recipes])


def _renamed(runs: Sequence[RunResult], others: Sequence[tuple[str, str]]) -> list[RunResult]:
    """Runs with other names and groups where theirs also mean something else."""
    names = Counter(run.name for run in runs)
    groups = Counter(group for _, group, _ in {(run.recipe, run.group, run.configuration) for run in runs})
    return [
        run.model_copy(
            update={
                "name": name if names[run.name] > 1 else run.name,
                "group": group if groups[run.group] > 1 else run.group,
            }
        )
        for run, (name, group) in zip(runs, others, strict=True)
    ]
