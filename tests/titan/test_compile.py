"""The objective under torch.compile: the same numbers, one graph, and nothing compiled twice while a run goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
from torchtitan.config import CompileConfig

import pdforge.titan  # noqa: F401 - prepares torchtitan for this device
from pdforge.recipe.models import Objective
from pdforge.titan import DistillationLoss
from pdforge.titan.packing import pack

ROWS, LENGTH, VOCABULARY, TOP_K = 2, 24, 97, 9
TOTAL = 10
ALPHA = {"schedule": "wsd", "peak": 0.9, "warmup": 0.5, "decay": 0.2}
OBJECTIVES = [
    {},
    {
        "tail": "label",
        "temperature": {"kind": "scheduled", "low": 1.0, "high": 3.0, "along": {"schedule": "linear_dec"}},
    },
    {"loss": {"kind": "reverse_kld"}, "tail": "ghost"},
    {"loss": {"kind": "jsd"}, "temperature": {"kind": "adakd_h"}},
    {"loss": {"kind": "mse"}, "temperature": {"kind": "normkd"}},
    {"loss": {"kind": "nll"}, "temperature": {"kind": "wttm"}},
]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing of another test is compiled already."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def _loss(objective: dict[str, object], backend: str | None) -> DistillationLoss:
    made = Objective.model_validate({"alpha": ALPHA, **objective})
    compiled = CompileConfig(enable=backend is not None, backend=backend or "")
    return DistillationLoss.Config(objective=made, vocabulary=VOCABULARY).build(compile_config=compiled)


def _batch(step: int, *, spread: bool) -> torch.Tensor:
    """Packed labels; the number of entries, ignored labels and missing teachers are others in each step."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.rand(ROWS, LENGTH, VOCABULARY, generator=generator).topk(TOP_K).indices
    logprobs = torch.randn(ROWS, LENGTH, TOP_K + 4, generator=generator).log_softmax(-1)[..., :TOP_K]
    count = torch.randint(0, TOP_K + 1, (ROWS, LENGTH, 1), generator=generator)
    logprobs = torch.where(torch.arange(TOP_K) < count, logprobs, -torch.inf)
    labels = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator)
    labels[torch.rand(ROWS, LENGTH, generator=generator) < 0.1 * step] = -100
    deviation = torch.rand(ROWS, LENGTH, generator=generator) + 0.5
    return pack(labels, ids, logprobs, deviation if spread else None)


def _step(loss: DistillationLoss, step: int, *, spread: bool) -> tuple[torch.Tensor, ...]:
    """Value, gradient and parts of a step."""
    logits = torch.randn(ROWS, LENGTH, VOCABULARY, generator=torch.Generator().manual_seed(-step)).requires_grad_()
    loss.start_step(step, TOTAL)
    value, _ = loss(logits, _batch(step, spread=spread), torch.tensor(float(ROWS * LENGTH)))
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad, loss.sums.clone()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_graph_for_a_whole_run(objective: dict[str, object]) -> None:
    """α and τ change from step to step, and so does how many entries the teacher has: no graph is broken, none is made
    again (which would raise here).
    """
    spread = "normkd" in str(objective)
    loss, plain = _loss(objective, "aot_eager"), _loss(objective, None)
    _step(loss, 1, spread=spread)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(2, 7):
            for found, expected in zip(
                _step(loss, step, spread=spread), _step(plain, step, spread=spread), strict=True
            ):
                torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_a_number_for_alpha_would_be_compiled_again() -> None:
    """The test above can fail."""
    loss = _loss({}, "aot_eager")
    _step(loss, 1, spread=False)
    loss.temperature = loss.alpha = torch.zeros((), dtype=torch.float64)
    with torch._dynamo.config.patch(error_on_recompile=True), pytest.raises(torch._dynamo.exc.RecompileError):
        _step(loss, 2, spread=False)


@pytest.mark.skipif(not shutil.which("g++"), reason="inductor compiles for the CPU with g++")
@pytest.mark.parametrize("objective", [OBJECTIVES[0], OBJECTIVES[2]])
def test_inductors_code_has_the_same_numbers(objective: dict[str, object]) -> None:
    compiled, plain = _loss(objective, "inductor"), _loss(objective, None)
    for step in (1, 4):
        for found, expected in zip(_step(compiled, step, spread=False), _step(plain, step, spread=False), strict=True):
            torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-7)
    assert torch._dynamo.utils.counters["inductor"]
