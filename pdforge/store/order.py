"""The order in which a training reads the samples of a split, however many times it reads them all."""

from __future__ import annotations

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = 6


class SampleOrder:
    """The sample index at each position 0, 1, … of a training, without end: epoch e is positions e·n … (e+1)·n - 1.

    Epoch 0 reads a split as it is stored, which is shuffled. Every later one has a permutation of its own, of (seed,
    epoch, n) alone: a Feistel network over at least n numbers, applied again until its result is below n. So nothing of
    the size of n is held, any position costs the same, and no library's version matters.
    """

    def __init__(self, samples: int, seed: int, start: int = 0) -> None:
        """The order of so many samples, from position `start` on; `seed` is that of their token store."""
        self._samples, self._seed, self._start = samples, seed, start
        self._half = max(1, ((samples - 1).bit_length() + 1) // 2)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position + self._start, self._samples)
        if epoch == 0:
            return place
        keys = [_mix(self._seed + _GOLDEN * (epoch * _ROUNDS + number)) for number in range(_ROUNDS)]
        place = self._permuted(place, keys)
        while place >= self._samples:
            place = self._permuted(place, keys)
        return place

    def _permuted(self, place: int, keys: list[int]) -> int:
        mask = (1 << self._half) - 1
        left, right = place >> self._half, place & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        return left << self._half | right


def _mix(number: int) -> int:
    """splitmix64's finaliser."""
    x = number & _WORD
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _WORD
    return x ^ x >> 31
