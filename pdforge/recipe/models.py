"""The typed recipe. Field texts are written for users: they feed `--help`, the JSON Schema and the reference page."""

from __future__ import annotations

from pdforge.recipe.parts.architecture import Architecture, Student
from pdforge.recipe.parts.base import Model
from pdforge.recipe.parts.data import (
    Corpus,
    Data,
    JsonLinesCorpus,
    PretrainedTokenizer,
    StandardLibraryCorpus,
    TextCorpus,
    Tokenizer,
    TrainedTokenizer,
)
from pdforge.recipe.parts.objective import KLD, NLL, Loss, Objective
from pdforge.recipe.parts.schedules import (
    AlphaSchedule,
    Constant,
    Cosine,
    LearningRateConstant,
    LearningRateCosine,
    LearningRateSchedule,
    LearningRateWSD,
    LinearDecrease,
    LinearIncrease,
    Period,
    WarmupStableDecay,
    WarmupStableDecayOfRest,
)
from pdforge.recipe.parts.teacher import (
    HuggingFaceTeacher,
    OfflineLogits,
    PretrainedHere,
    Teacher,
    TeacherModel,
    TopPTopK,
    TorchtitanTeacher,
)
from pdforge.recipe.parts.training import AdamW, Batch, Checkpointing, Parallelism, Training
from pdforge.recipe.units import Name

__all__ = [
    "KLD",
    "NLL",
    "AdamW",
    "AlphaSchedule",
    "Architecture",
    "Batch",
    "Checkpointing",
    "Constant",
    "Corpus",
    "Cosine",
    "Data",
    "HuggingFaceTeacher",
    "JsonLinesCorpus",
    "LearningRateConstant",
    "LearningRateCosine",
    "LearningRateSchedule",
    "LearningRateWSD",
    "LinearDecrease",
    "LinearIncrease",
    "Loss",
    "Model",
    "Objective",
    "OfflineLogits",
    "Parallelism",
    "Period",
    "PretrainedHere",
    "PretrainedTokenizer",
    "Recipe",
    "StandardLibraryCorpus",
    "Student",
    "Teacher",
    "TeacherModel",
    "TextCorpus",
    "Tokenizer",
    "TopPTopK",
    "TorchtitanTeacher",
    "TrainedTokenizer",
    "Training",
    "WarmupStableDecay",
    "WarmupStableDecayOfRest",
]


class Recipe(Model):
    """What is to be learnt from whom. Never where it runs."""

    recipe: Name
    """Its name; a run's directory begins with it."""
    description: str = ""
    """One line for people."""
    data: Data
    """What is learnt from."""
    teacher: Teacher | None = None
    """Whose distributions are learnt; may be left out where α is 0 throughout."""
    student: Student
    """The model that is pre-trained."""
    objective: Objective = Objective()
    """What is minimised."""
    training: Training
    """How the student is trained."""
