"""Draws are those of the full softmax, and a function of seed, sample and place alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdforge.distill.sampling import random_bits, sample

ZERO = torch.zeros(1, dtype=torch.int64)


def drawn(logits: torch.Tensor, draws: int, seed: int = 0, first: int = 0) -> torch.Tensor:
    """Counts, dense [N, V], of positions of samples first, first+1, …"""
    samples = torch.arange(first, first + len(logits))
    found = sample(logits, draws, seed=seed, samples=samples, places=torch.zeros_like(samples))
    return torch.zeros(logits.shape, dtype=torch.int64).scatter_add_(1, found.ids, found.draws)


def splitmix(state: int) -> int:
    """The reference finaliser, on Python's integers (Steele, Lea and Flood 2014)."""
    mask = 2**64 - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    return state ^ (state >> 31)


@pytest.mark.parametrize(("seed", "place", "at"), [(0, 0, 0), (2**63 - 1, 10**12, 4095), (7, 123, 5)])
def test_random_numbers_are_splitmix64(seed: int, place: int, at: int) -> None:
    bits = random_bits(seed, torch.tensor([place]), torch.tensor([at]), 20)[0].tolist()
    state = splitmix((splitmix((splitmix(seed) + place) % 2**64) + at) % 2**64)
    assert bits == [splitmix((state + (j + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 2 for j in range(20)]


def test_chi_square_against_the_full_softmax() -> None:
    """A million draws over 40 tokens of very different probability; the seed is fixed, so this either holds or not."""
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(3)) * 2
    positions, draws = 5000, 200
    counts = drawn(logits.expand(positions, -1), draws).sum(0).double()
    expected = torch.softmax(logits.double(), -1)[0] * positions * draws
    assert float(expected.min()) > 50
    statistic = float(((counts - expected).square() / expected).sum())
    assert 15 < statistic < 75  # 39 degrees of freedom: 1e-4 beyond either side
    # and draws of one position do not lean on each other: its counts vary as a multinomial's
    one = drawn(logits.expand(positions, -1), draws).double()
    p = expected / expected.sum()
    torch.testing.assert_close(one.var(0), draws * p * (1 - p), rtol=0.15, atol=0)


def test_unbiased_at_every_position() -> None:
    """Mean of the sampled targets over many seeds is the softmax, position by position."""
    logits = torch.randn(30, 300, generator=torch.Generator().manual_seed(1)) * 3
    seeds, draws = 400, 50
    mean = sum(drawn(logits, draws, seed) for seed in range(seeds)).double() / (seeds * draws)
    p = torch.softmax(logits.double(), -1)
    deviation = (mean - p) / (p * (1 - p) / (seeds * draws)).sqrt()
    frequent = p > 1e-3
    assert float(deviation[frequent].abs().max()) < 5
    assert 0.9 < float(deviation[frequent].std()) < 1.1


def test_the_same_in_any_batch_and_order() -> None:
    logits = torch.randn(64, 1000, generator=torch.Generator().manual_seed(2))
    samples, places = torch.arange(64) // 16, torch.arange(64) % 16
    whole = sample(logits, 30, seed=5, samples=samples, places=places)
    for rows in (torch.arange(64).flip(0), torch.arange(7, 9), torch.tensor([63])):
        part = sample(logits[rows], 30, seed=5, samples=samples[rows], places=places[rows])
        for name in ("ids", "draws", "count"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rows])


def test_other_seed_sample_or_place_draws_otherwise() -> None:
    logits = torch.zeros(1, 50_000)
    found = {
        tuple(sample(logits, 5, seed=s, samples=ZERO + n, places=ZERO + t).ids[0].tolist())
        for s in range(5)
        for n in range(5)
        for t in range(5)
    }
    assert len(found) == 125


def test_counts_order_and_padding() -> None:
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(4)) * 2
    samples = torch.arange(200)
    found = sample(logits, 30, seed=0, samples=samples, places=samples)
    assert torch.equal(found.draws.sum(-1), torch.full((200,), 30))
    for ids, number, count in zip(found.ids.tolist(), found.draws.tolist(), found.count.tolist(), strict=True):
        assert not any(ids[count:])
        assert not any(number[count:])
        assert len(set(ids[:count])) == count
        keys = [(-n, i) for i, n in zip(ids[:count], number[:count], strict=True)]
        assert keys == sorted(keys)


def test_what_cannot_occur_is_never_drawn() -> None:
    logits = torch.full((3, 6), -torch.inf)
    logits[0, 2], logits[1, 1], logits[1, 4] = 0.0, 1.0, 1.0
    logits[2] = torch.nan
    found = sample(logits, 40, seed=0, samples=torch.arange(3), places=torch.arange(3))
    assert found.count[:2].tolist() == [1, 2]
    assert found.ids[0, 0] == 2
    assert sorted(found.ids[1, :2].tolist()) == [1, 4]
    assert (found.ids[2] == -1).all()  # which the store's writer refuses


def test_low_precision_and_large_vocabularies() -> None:
    """A flat distribution over 2^18 tokens: every part of the vocabulary is reached."""
    found = sample(
        torch.zeros(64, 1 << 18, dtype=torch.bfloat16),
        255,
        seed=0,
        samples=torch.arange(64),
        places=torch.arange(64),
    )
    ids = np.repeat(found.ids.numpy().ravel(), found.draws.numpy().ravel())
    parts = np.bincount(ids >> 14, minlength=16)
    assert len(ids) == 64 * 255
    assert ((parts - len(ids) / 16) ** 2 / (len(ids) / 16)).sum() < 45  # 15 degrees of freedom, 1e-4
