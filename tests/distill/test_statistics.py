from __future__ import annotations

import pytest
import torch

from pdforge.distill.statistics import statistics

NAMES = ("entropy", "standard_deviation", "logsumexp", "label_logprob")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_against_float64(dtype: torch.dtype) -> None:
    logits = (torch.randn(50, 200, generator=torch.Generator().manual_seed(0)) * 3 + 5).to(dtype)
    labels = torch.randint(0, 200, (50,), generator=torch.Generator().manual_seed(1))
    found = statistics(logits, labels, NAMES)
    dense = logits.double()
    logprobs = torch.log_softmax(dense, -1)
    expected = {
        "entropy": -(logprobs.exp() * logprobs).sum(-1),
        "standard_deviation": dense.std(-1, correction=0),
        "logsumexp": dense.exp().sum(-1).log(),
        "label_logprob": logprobs[torch.arange(50), labels],
    }
    assert tuple(found) == NAMES
    for name in NAMES:
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-5)


def test_tokens_that_cannot_occur_do_not_count() -> None:
    logits = torch.tensor([[1.0, 3.0, -torch.inf], [2.0, -torch.inf, -torch.inf]])
    found = statistics(logits, torch.tensor([0, 1]), NAMES)
    assert found["standard_deviation"].tolist() == [1.0, 0.0]
    assert found["entropy"][1] == 0
    assert found["entropy"].isfinite().all()
    assert found["label_logprob"][1] == -torch.inf


def test_only_what_is_asked_for() -> None:
    assert list(statistics(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), ("entropy",))) == ["entropy"]
