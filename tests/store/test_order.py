"""The order of samples over several epochs: permutations, each its own, and none of them held in memory."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdforge.store.order import SampleOrder


def epoch(samples: int, seed: int, number: int) -> list[int]:
    order = SampleOrder(samples, seed)
    return [order[number * samples + place] for place in range(samples)]


@given(samples=st.integers(1, 300), seed=st.integers(0, 2**63 - 1), number=st.integers(0, 10**6))
def test_every_epoch_reads_every_sample_once(samples: int, seed: int, number: int) -> None:
    assert sorted(epoch(samples, seed, number)) == list(range(samples))


def test_the_first_epoch_is_the_stores_order() -> None:
    assert epoch(1000, 5, 0) == list(range(1000))


def test_every_later_epoch_is_shuffled_by_itself() -> None:
    samples = 4096
    found = [epoch(samples, seed, number) for seed in (0, 1) for number in (1, 2, 3)]
    for places in found:
        # of a random permutation: a third of the range away from its place, and one sample where it was
        assert sum(abs(a - b) for a, b in enumerate(places)) / samples**2 == pytest.approx(1 / 3, abs=0.01)
        assert sum(a == b for a, b in enumerate(places)) < 10
        assert sum(abs(a - b) == 1 for a, b in pairwise(places)) < 20
    for one, places in enumerate(found):
        for other in found[:one]:
            assert sum(a == b for a, b in zip(places, other, strict=True)) < 10


def test_small_splits_get_every_order_about_equally_often() -> None:
    orders = [tuple(epoch(3, 0, number)) for number in range(1, 1201)]
    assert all(150 < orders.count(each) < 250 for each in set(orders))
    assert len(set(orders)) == 6


def test_the_order_is_fixed_for_ever() -> None:
    """Runs that were stopped go on in it, and identities stand for it."""
    assert epoch(10, 0, 1) == [9, 6, 7, 3, 2, 4, 1, 8, 5, 0]
    assert epoch(10, 0, 2) == [7, 8, 9, 0, 6, 4, 5, 1, 2, 3]


def test_a_position_far_out_in_a_huge_split() -> None:
    order = SampleOrder(10**12, 3)
    found = [order[7 * 10**12 + place] for place in range(100)]
    assert len(set(found)) == 100
    assert all(0 <= sample < 10**12 for sample in found)
