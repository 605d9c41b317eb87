"""A store that is cut again gives what a direct capture at the closer truncation gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pdforge.distill.target import Target, make_target
from pdforge.distill.teacher import read_teacher
from pdforge.distill.truncation import truncate
from pdforge.errors import StoreError, StoreMismatch
from pdforge.store.codec import CODECS, LogitBlock, decode, encode, ordered
from pdforge.store.logits import LogitStore, LogitWriter, _cut
from pdforge.store.ranks import Ranks
from tests.store import made

COMPANDED = [name for name, codec in CODECS.items() if codec.values == "levels"]


def logits_of(seed: int, length: int, vocabulary: int, flat: float, coarse: bool, impossible: bool) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(length, vocabulary)) * flat
    if coarse:
        logits = np.round(logits)  # ties, as low-precision logits have
    if impossible:
        logits[rng.random(logits.shape) < 0.5] = -np.inf
        logits[:, 0] = 0.0
    return torch.from_numpy(logits.astype(np.float32))


def captured(logits: torch.Tensor, top_p: float, top_k: int) -> tuple[LogitBlock, np.ndarray, np.ndarray]:
    """As the capture stage hands it over; and its rows of K entries."""
    kept = truncate(logits, top_p, top_k)
    ids, logprobs, count = kept.ids.numpy().astype(np.int32), kept.logprobs.numpy(), kept.count.numpy()
    inside = np.arange(ids.shape[1]) < count[:, None]
    block = LogitBlock(count.astype(np.uint16), ids[inside], logprobs[inside], kept.mass.numpy())
    return block, ids, logprobs


def stored(name: str, block: LogitBlock, vocabulary: int, width: int):
    ranks = Ranks.from_counts(np.bincount(block.ids, minlength=vocabulary))
    data = encode(CODECS[name], ranks, block)
    return ordered(decode(CODECS[name], ranks, data, length=len(block.count), width=width))


shapes = {
    "seed": st.integers(0, 2**32 - 1),
    "vocabulary": st.sampled_from([2, 3, 257, 4000]),
    "flat": st.sampled_from([0.1, 2.0, 12.0]),
    "coarse": st.booleans(),
    "impossible": st.booleans(),
    "wide": st.sampled_from([(0.95, 20), (0.99, 255), (1.0, 100)]),
    "narrow": st.sampled_from([(0.9, 20), (0.95, 5), (0.5, 10), (0.01, 1)]),
}


@settings(max_examples=60, deadline=None)
@given(**shapes)
def test_lossless_is_a_direct_capture_to_the_bit(seed, vocabulary, flat, coarse, impossible, wide, narrow):
    logits = logits_of(seed, 8, vocabulary, flat, coarse, impossible)
    width, closer = min(wide[1], vocabulary), min(narrow[1], vocabulary)
    block, *_ = captured(logits, wide[0], width)
    direct, wanted_ids, wanted_logprobs = captured(logits, narrow[0], closer)
    # float32 sums of capture and float64 sums of the store may part where an edge is hit exactly
    p = np.exp(stored("lossless", block, vocabulary, width).logprobs.astype(np.float64))
    clear = (np.abs(np.cumsum(p, axis=1) - narrow[0]) > 1e-5).all(axis=1)
    ids, logprobs, mass = _cut(stored("lossless", block, vocabulary, width), narrow[0], closer)
    np.testing.assert_array_equal(ids[clear], wanted_ids[clear])
    np.testing.assert_array_equal(logprobs[clear], wanted_logprobs[clear])
    np.testing.assert_allclose(mass[clear], direct.mass[clear], rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(**shapes, name=st.sampled_from(COMPANDED))
def test_others_are_a_direct_capture_of_the_stored_probabilities(
    seed, vocabulary, flat, coarse, impossible, wide, narrow, name
):
    """A teacher whose distribution is the stored one, what was cut off lying on ids that come last."""
    logits = logits_of(seed, 8, vocabulary, flat, coarse, impossible)
    width, closer = min(wide[1], vocabulary), min(narrow[1], vocabulary)
    held = stored(name, captured(logits, *wide)[0], vocabulary, width)
    p = np.exp(held.logprobs.astype(np.float64))
    rest = np.maximum(1 - p.sum(1, keepdims=True), 0)
    smallest = np.where(p > 0, p, np.inf).min(1, keepdims=True)
    spread = int(np.ceil((rest / smallest).max())) + 1
    assume(spread <= 20_000)
    teacher = np.zeros((8, vocabulary + spread))
    for row, share in enumerate(p):
        teacher[row, held.ids[row, share > 0]] = share[share > 0]
    teacher[:, vocabulary:] = rest / spread
    with np.errstate(divide="ignore"):
        direct, wanted_ids, _ = captured(torch.from_numpy(np.log(teacher)).float(), narrow[0], closer)
    clear = (np.abs(np.cumsum(p, axis=1) - narrow[0]) > 1e-5).all(axis=1)
    ids, logprobs, _ = _cut(held, narrow[0], closer)
    for row in np.flatnonzero(clear):
        kept = wanted_ids[row, : direct.count[row]]
        np.testing.assert_array_equal(ids[row][np.isfinite(logprobs[row])], kept[kept < vocabulary])


@pytest.mark.parametrize("name", ["lossless", "rank-gap-63", "context-40"])
def test_temperature_after_the_cut_is_the_temperature_of_a_direct_capture(name):
    logits = logits_of(3, 64, 1000, 2.0, coarse=False, impossible=False)
    ids, logprobs, _ = _cut(stored(name, captured(logits, 0.95, 100)[0], 1000, 100), 0.8, 30)
    _, wanted_ids, wanted_logprobs = captured(logits, 0.8, 30)

    def target(ids: np.ndarray, logprobs: np.ndarray) -> Target:
        teacher = read_teacher(torch.from_numpy(ids), torch.from_numpy(logprobs), 1000)
        return make_target(teacher, torch.zeros(64, dtype=torch.long), torch.full((64,), 2.0), "renormalise")

    again, direct = target(ids, logprobs), target(wanted_ids, wanted_logprobs)
    dense = [torch.zeros(64, 1000).scatter_add_(1, t.columns, t.weights) for t in (again, direct)]
    apart = (dense[0] - dense[1]).abs().sum(1) / 2
    assert apart.max() < (1e-6 if name == "lossless" else 0.15)
    assert apart.mean() < {"lossless": 1e-6, "rank-gap-63": 0.03, "context-40": 0.05}[name]


def test_a_vocabulary_of_262144_through_a_store(tmp_path):
    vocabulary = 262_144
    logits = logits_of(5, 16, vocabulary, 3.0, coarse=True, impossible=True)
    block, ids, logprobs = captured(logits, 0.95, 100)
    held = made.spec(codec="lossless", vocabulary=vocabulary, top_k=100, sequences=1)
    writer = LogitWriter(tmp_path / "s", held)
    writer.write_shard(0, [block])
    writer.finish({})
    again = LogitStore.open(tmp_path / "s").get(0)
    np.testing.assert_array_equal(again[0], ids)
    np.testing.assert_array_equal(again[1], logprobs)


def test_sampled_targets_are_not_cut(tmp_path):
    held = made.spec(codec="sampled", sequences=1, top_p=1.0, top_k=8)
    rng = np.random.default_rng(0)
    ids = np.concatenate([rng.choice(300, 4, replace=False) for _ in range(16)])
    writer = LogitWriter(tmp_path / "s", held)
    writer.write_shard(0, [LogitBlock.sampled(np.full(16, 4), ids, np.tile([5, 3, 1, 1], 16))])
    writer.finish({})
    store = LogitStore.open(tmp_path / "s")
    np.testing.assert_allclose(np.exp(store.get(0)[1][:, :4]), np.tile([0.5, 0.3, 0.1, 0.1], (16, 1)), rtol=1e-6)
    for cut in ({"top_p": 0.9}, {"top_k": 4}):
        with pytest.raises(StoreMismatch, match="sampled targets cannot be cut"):
            store.get(0, **cut)
    with pytest.raises(StoreError, match="number of draws"):
        writer.write_shard(0, [made.blocks_of(held, 0)[0]])
