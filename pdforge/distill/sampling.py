"""Sampling a teacher's distribution (arXiv 2503.16870): exact counts of draws from the full softmax at τ=1.

A draw is the inverse of the cumulative distribution at a random number. Random numbers come from SplitMix64 in integer
arithmetic, seeded by (seed, sample, place): a counter-based generator has no state, so a position's draws are the same
in any batch, order, process and device. A cumulative sum of floats is not (CUDA adds in no fixed order), so the
probabilities become integers first: their sums are exact. (Gumbel noise would need V random numbers a draw instead of
one, and logarithms, which differ between devices.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SCALE = 2.0**36
"""Weight of the most probable token. A token's probability is rounded by less than 1e-11 of the largest; sums over 2^24
tokens stay below 2^61."""

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


@dataclass(frozen=True)
class Sampled:
    """How often which ids were drawn from N distributions, padded to K = number of draws.

    Attributes:
        ids: int64 [N, K], by falling number of draws, ties by rising id; padding is 0. A distribution that is none
            (NaN, or nothing but -inf) has ids of -1.
        draws: int64 [N, K], how often each was drawn; padding is 0.
        count: int64 [N], different ids drawn.
    """

    ids: Tensor
    draws: Tensor
    count: Tensor


@torch.no_grad()
def sample(logits: Tensor, draws: int, *, seed: int, samples: Tensor, places: Tensor) -> Sampled:
    """Draw with replacement `draws` times from each distribution.

    Args:
        logits: [N, V], any floating dtype; -inf is a token that cannot occur.
        draws: at least 1.
        seed: of the store; in [0, 2^63).
        samples: int64 [N], sample index of each position.
        places: int64 [N], the position's place in its sequence.
    """
    logits = logits.float()
    peak = logits.amax(-1, keepdim=True)
    upto = (logits - peak).exp_().mul_(_SCALE).round_().long().cumsum(-1)
    picks = torch.searchsorted(upto, _below(upto[:, -1:], random_bits(seed, samples, places, draws)), right=True)
    ids, drawn = _counted(picks)
    return Sampled(ids=torch.where(peak.isfinite(), ids, -1), draws=drawn, count=(drawn > 0).sum(-1))


def random_bits(seed: int, samples: Tensor, places: Tensor, draws: int) -> Tensor:
    """Random numbers in [0, 2^62): int64 [N, draws], a function of (seed, sample, place, draw) alone.

    Row n is the SplitMix64 sequence seeded by mix(mix(mix(seed) + sample) + place), without its lowest two bits.
    """
    start = _mix(torch.tensor(seed, dtype=torch.int64, device=samples.device))
    state = _mix(_mix(start + samples) + places)
    steps = torch.arange(1, draws + 1, device=samples.device) * _GOLDEN
    return _shifted(_mix(state[:, None] + steps), 2)


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's finaliser. Products wrap; int64 has no logical shift, which `_shifted` makes up for."""
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """`bits` as unsigned, shifted right."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _below(total: Tensor, bits: Tensor) -> Tensor:
    """floor(bits/2^62 · total), exactly: the product's upper part from products of halves, which fit int64."""
    half = (1 << 31) - 1
    high, low = bits >> 31, bits & half
    total_high, total_low = total >> 31, total & half
    middle = high * total_low + low * total_high + (low * total_low >> 31)
    return high * total_high + (middle >> 31)


def _counted(picks: Tensor) -> tuple[Tensor, Tensor]:
    """Different ids of each row and how often they come, by falling number, then rising id; padded with 0."""
    rows = picks.sort(-1).values
    starts = torch.ones_like(rows, dtype=torch.bool)
    starts[:, 1:] = rows[:, 1:] != rows[:, :-1]
    run = starts.cumsum(-1) - 1
    number = torch.zeros_like(rows).scatter_add_(1, run, torch.ones_like(rows))
    ids = torch.zeros_like(rows).scatter_(1, run, rows)
    most = rows.shape[1]
    keys = (((most - number) << 32) | ids).sort(-1).values
    return keys & 0xFFFFFFFF, most - (keys >> 32)
