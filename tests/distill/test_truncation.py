from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdforge.distill.target import make_target
from pdforge.distill.teacher import read_teacher
from pdforge.distill.truncation import truncate
from tests.distill.dense import dense_target


@pytest.mark.parametrize(("top_p", "top_k"), [(0.95, 50), (0.5, 50), (1.0, 7), (0.99, 1), (1.0, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_target_against_the_dense_reference(top_p, top_k, dtype) -> None:
    # bfloat16 logits tie often: the tie rule decides which ids are kept
    logits = (torch.randn(50, 90, generator=torch.Generator().manual_seed(0)) * 2).to(dtype).float()
    kept = truncate(logits, top_p, top_k)
    teacher = read_teacher(kept.ids, kept.logprobs, 90)
    target = make_target(teacher, torch.zeros(50, dtype=torch.long), torch.full((50,), 2.0), "renormalise")
    dense = torch.zeros(50, 90, dtype=torch.float64).scatter_add_(1, target.columns, target.weights.double())
    torch.testing.assert_close(dense, dense_target(logits, top_p, top_k, 2.0), rtol=0, atol=5e-7)


def test_kept_values_are_those_of_the_full_softmax() -> None:
    logits = torch.randn(20, 300, generator=torch.Generator().manual_seed(4)) * 2
    kept = truncate(logits, 0.8, 10)
    full = torch.log_softmax(logits.double(), -1)
    held = kept.logprobs > -torch.inf
    assert torch.equal(held.sum(-1), kept.count)
    torch.testing.assert_close(kept.logprobs.double()[held], full.gather(1, kept.ids)[held], rtol=0, atol=1e-5)
    torch.testing.assert_close(kept.mass.double(), (full.gather(1, kept.ids).exp() * held).sum(-1), rtol=0, atol=1e-6)


def test_impossible_tokens() -> None:
    logits = torch.full((2, 6), -torch.inf)
    logits[0, 2], logits[1, 1], logits[1, 4] = 0.0, 1.0, 1.0
    kept = truncate(logits, 1.0, 6)
    assert kept.count.tolist() == [1, 2]
    assert kept.ids[0, 0] == 2
    assert kept.ids[1, :2].tolist() == [1, 4]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(-6, 6), min_size=5, max_size=5), min_size=1, max_size=4),
    top_p=st.floats(0.01, 1.0),
    top_k=st.integers(1, 8),
)
def test_rules(rows, top_p, top_k) -> None:
    """On small integers, where ties are the rule: ordered, at least one, no more than asked, smallest sufficient
    set.
    """
    logits = torch.tensor(rows, dtype=torch.float32)
    kept = truncate(logits, top_p, top_k)
    for row in range(len(rows)):
        count = int(kept.count[row])
        ids = kept.ids[row, :count].tolist()
        keys = [(-rows[row][i], i) for i in ids]
        assert 1 <= count <= min(top_k, 5)
        assert keys == sorted(keys)
        assert keys == sorted((-z, i) for i, z in enumerate(rows[row]))[:count]
        probabilities = torch.softmax(logits[row].double(), 0)[ids]
        assert float(probabilities[:-1].sum()) < top_p + 1e-6
        assert count == min(top_k, 5) or float(probabilities.sum()) >= top_p - 1e-6


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), top_p=st.floats(0.01, 1.0), top_k=st.integers(1, 40), sharp=st.floats(0.1, 10))
def test_truncating_twice_changes_nothing(seed, top_p, top_k, sharp) -> None:
    """Idempotence, on the kept logits themselves: their mass only grows when the rest is gone, so with the mass of the
    first cut as the whole, nothing more is cut by top-k, and the order stays.
    """
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(seed)) * sharp
    once = truncate(logits, top_p, top_k)
    kept = torch.full_like(logits, -torch.inf)
    for row in range(3):
        own = once.ids[row, : once.count[row]]
        kept[row, own] = logits[row, own]
    twice = truncate(kept, 1.0, top_k)
    for row in range(3):
        count = int(twice.count[row])
        # float32 sums may reach 1 before the last, least likely entries
        assert twice.ids[row, :count].tolist() == once.ids[row, :count].tolist()
        assert once.logprobs[row, count : once.count[row]].exp().sum() <= 1e-6


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sharp=st.floats(0.1, 10))
def test_more_is_kept_of_more(seed, sharp) -> None:
    """Mass and count never fall when top-p or top-k rises, and what was kept stays kept, in its order."""
    logits = torch.randn(2, 40, generator=torch.Generator().manual_seed(seed)) * sharp
    cuts = [truncate(logits, top_p, top_k) for top_p, top_k in ((0.3, 5), (0.8, 5), (0.8, 20), (1.0, 40))]
    for less, more in pairwise(cuts):
        assert (more.count >= less.count).all()
        assert (more.mass >= less.mass - 1e-6).all()
        for row in range(2):
            count = int(less.count[row])
            assert more.ids[row, :count].tolist() == less.ids[row, :count].tolist()
    assert (cuts[-1].mass - 1).abs().max() <= 1e-5
