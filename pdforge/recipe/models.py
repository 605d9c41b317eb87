"""The typed recipe. Field texts are written for users: they feed `--help`, the JSON Schema and the reference page."""

from typing import Annotated

from pydantic import Field

from pdforge.recipe.parts.after import (
    Evaluate,
    EvaluationTask,
    Expectation,
    Export,
    Finetune,
    HuggingFaceConversations,
    Instructions,
    JsonLinesConversations,
    ParquetConversations,
    StandardLibraryConversations,
)
from pdforge.recipe.parts.architecture import (
    Architecture,
    HuggingFaceWeights,
    Initialise,
    Student,
    TorchtitanWeights,
)
from pdforge.recipe.parts.base import Model
from pdforge.recipe.parts.data import (
    Corpus,
    Data,
    HuggingFaceCorpus,
    JsonLinesCorpus,
    MixtureCorpus,
    ParquetCorpus,
    PretrainedTokenizer,
    Source,
    SourceCorpus,
    StandardLibraryCorpus,
    TextCorpus,
    Tokenizer,
    TrainedTokenizer,
)
from pdforge.recipe.parts.objective import (
    JSD,
    KLD,
    MSE,
    NLL,
    WTTM,
    AdaKDEntropy,
    AdaKDSpread,
    AdaptiveTemperature,
    Loss,
    NormKD,
    Objective,
    ReverseKLD,
    ScheduledTemperature,
    Temperature,
    TokenFilter,
)
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
    StepSchedule,
    TeacherConvergence,
    WarmupStableDecay,
    WarmupStableDecayOfRest,
)
from pdforge.recipe.parts.teacher import (
    Codec,
    Column,
    DistilledHere,
    HuggingFaceTeacher,
    LiveLogits,
    Logits,
    OfflineLogits,
    OnlineLogits,
    PretrainedHere,
    Sample,
    Teacher,
    TeacherBeside,
    TeacherModel,
    TopPTopK,
    TorchtitanTeacher,
    Truncation,
    WeightedTeacher,
)
from pdforge.recipe.parts.training import AdamW, Batch, Checkpointing, Parallelism, Training
from pdforge.recipe.units import Name

__all__ = [
    "JSD",
    "KLD",
    "MSE",
    "NLL",
    "WTTM",
    "AdaKDEntropy",
    "AdaKDSpread",
    "AdamW",
    "AdaptiveTemperature",
    "AlphaSchedule",
    "Architecture",
    "Batch",
    "Checkpointing",
    "Codec",
    "Column",
    "Constant",
    "Corpus",
    "Cosine",
    "Data",
    "DistilledHere",
    "Evaluate",
    "EvaluationTask",
    "Expectation",
    "Export",
    "Finetune",
    "HuggingFaceConversations",
    "HuggingFaceCorpus",
    "HuggingFaceTeacher",
    "HuggingFaceWeights",
    "Initialise",
    "Instructions",
    "JsonLinesConversations",
    "JsonLinesCorpus",
    "LearningRateConstant",
    "LearningRateCosine",
    "LearningRateSchedule",
    "LearningRateWSD",
    "LinearDecrease",
    "LinearIncrease",
    "LiveLogits",
    "Logits",
    "Loss",
    "MixtureCorpus",
    "Model",
    "NormKD",
    "Objective",
    "OfflineLogits",
    "OnlineLogits",
    "Parallelism",
    "ParquetConversations",
    "ParquetCorpus",
    "Period",
    "PretrainedHere",
    "PretrainedTokenizer",
    "Recipe",
    "ReverseKLD",
    "Sample",
    "ScheduledTemperature",
    "Source",
    "SourceCorpus",
    "StandardLibraryConversations",
    "StandardLibraryCorpus",
    "StepSchedule",
    "Student",
    "Teacher",
    "TeacherBeside",
    "TeacherConvergence",
    "TeacherModel",
    "Temperature",
    "TextCorpus",
    "TokenFilter",
    "Tokenizer",
    "TopPTopK",
    "TorchtitanTeacher",
    "TorchtitanWeights",
    "TrainedTokenizer",
    "Training",
    "Truncation",
    "WarmupStableDecay",
    "WarmupStableDecayOfRest",
    "WeightedTeacher",
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
    teachers: Annotated[tuple[WeightedTeacher, ...], Field(max_length=8)] = ()
    """Several teachers with the student's tokenizer, instead of `teacher`: L_kd is the sum of each one's, by weight."""
    student: Student
    """The model that is pre-trained."""
    objective: Objective = Objective.model_construct()
    """What is minimised."""
    training: Training
    """How the student is trained."""
    finetune: Finetune | None = None
    """Supervised fine-tuning of the student; by default none."""
    export: Export | None = None
    """Write the student for other programs; by default it stays a torchtitan checkpoint."""
    evaluate: Evaluate | None = None
    """Downstream tasks; by default only the held-out loss is measured."""
    expect: Annotated[tuple[Expectation, ...], Field(max_length=1000)] = ()
    """What the run should reach, for the report."""
