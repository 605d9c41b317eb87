"""A plan: the stages of one run with their identities, what they need, and what they cost."""

from collections.abc import Iterable, Sequence
from typing import Literal, Self

from pdforge.layout import LOGITS, TEACHERS, TOKENS
from pdforge.plan.jobs import Job, Part
from pdforge.plan.profile import Profile
from pdforge.recipe.models import Recipe

StageKind = Literal[
    "tokenize", "pretrain-teacher", "capture", "train", "tokenize-conversations", "finetune", "export", "evaluate"
]

_SHARED_FOLDER: dict[StageKind, str] = {
    "tokenize": TOKENS,
    "tokenize-conversations": TOKENS,
    "pretrain-teacher": TEACHERS,
    "capture": LOGITS,
}


def shared_directory(kind: StageKind, identity: str) -> str:
    """Stage directory of a stage that several runs share, relative to the storage root."""
    return f"{_SHARED_FOLDER[kind]}/{identity}"


class Stage(Part):
    """One kind of job with everything it needs to start."""

    key: str
    """`kind:identity`: stages of several plans with one key are one stage."""
    kind: StageKind
    title: str
    """What a person calls it: `train pd`."""
    identity: str
    """Hash of everything that changes the result."""
    directory: str
    """Stage directory, relative to the storage root."""
    needs: list[str]
    """Keys of the stages whose results it reads."""
    processes: int
    shared: bool
    """Other runs may read its result: it lies beside the runs, not in one."""
    job: Job

    @classmethod
    def of(cls, job: Job, *, directory: str, needs: Sequence["Stage"], processes: int, shared: bool = False) -> "Stage":
        """The stage that does the job, behind those it needs."""
        return cls.model_construct(
            key=f"{job.kind}:{job.identity}",
            kind=job.kind,
            title=job.title,
            identity=job.identity,
            directory=directory,
            needs=[stage.key for stage in needs],
            processes=processes,
            shared=shared,
            job=job,
        )


class ModelFigures(Part):
    """What one model weighs; None: unknown."""

    parameters: int | None
    flops_per_token: int | None
    """Forward and backward."""


class StageFigures(Part):
    """What one stage takes and leaves; None: unknown, or does not apply."""

    steps: int | None = None
    tokens: int | None = None
    flops: float | None = None
    bytes: int | None = None
    """On disk, when it is done."""
    bytes_at_most: int | None = None
    """A bound, where `bytes` is unknown."""


class Figures(Part):
    """Sizes and costs of a plan."""

    student: ModelFigures
    teacher: ModelFigures | None
    kept_entries: float | None
    """Mean number of entries of a position in the logit store; None: unknown, or no logit store."""
    stages: dict[str, StageFigures]
    """By stage key."""


class Plan(Part):
    """One run: a resolved recipe against a profile. `plan.json` is this model's JSON."""

    name: str
    """Of the recipe."""
    variant: str | None
    hash: str
    """The run's identity: every stage's, and pdforge's version. Leaves out names and where it runs."""
    directory: str
    """Run directory, relative to the storage root."""
    recipe: Recipe
    profile: Profile
    stages: list[Stage]
    """In dependency order."""
    figures: Figures
    reuses: str = ""
    """Why its logit store is that of another capture; empty: it is its own, or it has none."""

    @property
    def label(self) -> str:
        """What tables call the run: the variant, else the recipe."""
        return self.variant or self.name

    @property
    def training(self) -> Stage:
        """The stage that trains the student."""
        return next(stage for stage in self.stages if stage.kind == "train")

    @property
    def captures(self) -> list[Stage]:
        """The stages that store what the student learns, one for each teacher; none where nothing is stored."""
        training = self.stage("train")
        return self._needed(training, "capture") if training else []

    @property
    def teachers(self) -> list[Stage]:
        """The stages that train the student's own teachers; none of those from outside."""
        needed = [each for by in (*self.captures, self.training) for each in self._needed(by, "pretrain-teacher")]
        return list({stage.key: stage for stage in needed}.values())

    def stage(self, kind: StageKind) -> Stage | None:
        """The first stage of that kind, if the plan has one; of a chain of teachers several are of one kind."""
        return next((stage for stage in self.stages if stage.kind == kind), None)

    def _needed(self, by: Stage, kind: StageKind) -> list[Stage]:
        return [stage for stage in self.stages if stage.kind == kind and stage.key in by.needs]

    def with_runs_at_once(self, number: int | None) -> Self:
        """The plan with another `runs_at_once` in its profile; unchanged for None."""
        if number is None:
            return self
        return self.model_copy(update={"profile": self.profile.model_copy(update={"runs_at_once": number})})


def merged_stages(plans: Iterable[Plan]) -> list[Stage]:
    """The stages of all plans, each once, in dependency order: first those that runs share, then each run's own."""
    stages = {stage.key: stage for plan in plans for stage in plan.stages}
    return sorted(stages.values(), key=lambda stage: not stage.shared)
