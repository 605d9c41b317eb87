"""What this version cannot run is refused by name before anything starts; what it can run is not."""

from __future__ import annotations

import pytest

from pdforge.errors import UsageError
from pdforge.plan.runnable import require_runnable, unsupported
from tests.plan.conftest import FINETUNE, MakePlans

CANNOT = [
    ("evaluate={tasks: [{task: piqa}]}", "evaluate the student"),
]


@pytest.mark.parametrize(("override", "words"), CANNOT, ids=[words for _, words in CANNOT])
def test_what_cannot_run_is_refused_by_name(plans: MakePlans, override: str, words: str) -> None:
    made = plans(override, "training.tokens=4k")
    assert unsupported(made[0]).startswith(f"this version cannot {words}")
    with pytest.raises(UsageError, match="this version cannot") as caught:
        require_runnable(made)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "override",
    [
        "objective.loss.kind=nll",
        "objective.loss={kind: mse}",
        "objective.tail=ghost",
        "objective.temperature=2",
        "objective.temperature={kind: adakd_h}",
        "objective.temperature={kind: normkd}",
        "objective.token_filter={skip_lowest_entropy: 15%}",
        "teacher.truncation.top_k=5",
        "teacher.logits={mode: live}",
        "export={}",
        FINETUNE,
    ],
)
def test_what_can_run_is_not_refused(plans: MakePlans, override: str) -> None:
    assert [unsupported(plan) for plan in plans(override, variants=("lm", "pd"))] == ["", ""]


def test_without_distillation_the_objective_is_not_read(plans: MakePlans) -> None:
    [plan] = plans("objective.loss={kind: mse}", "teacher.truncation={kind: sample}", variants=("lm",))
    assert unsupported(plan) == ""
