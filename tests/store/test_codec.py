"""The codec gives back what it was given: exactly, or as near as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdforge.store.codec import CODECS, CorruptBlockError, LogitBlock, decode, encode, ordered
from pdforge.store.fidelity import divergence
from pdforge.store.ranks import Ranks
from tests.store import made

VALUES = [name for name, codec in CODECS.items() if codec.values != "draws"]


def rows(block: LogitBlock, width: int) -> tuple[np.ndarray, np.ndarray]:
    inside = np.arange(width) < block.count.astype(int)[:, None]
    ids = np.zeros(inside.shape, np.int32)
    logprobs = np.full(inside.shape, -np.inf, np.float32)
    ids[inside], logprobs[inside] = block.ids, block.logprobs
    return ids, logprobs


def through(name: str, block: LogitBlock, vocabulary: int, width: int, counts=None, columns=()):
    ranks = Ranks.from_counts(np.zeros(vocabulary, np.int64) if counts is None else counts)
    data = encode(CODECS[name], ranks, block, columns)
    return ordered(decode(CODECS[name], ranks, data, length=len(block.count), width=width, columns=columns))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.sampled_from([2, 3, 255, 256, 257, 5000]),
    length=st.integers(1, 12),
    top_k=st.sampled_from([1, 2, 20, 255]),
    top_p=st.sampled_from([0.3, 0.95, 1.0]),
    ties=st.booleans(),
    flat=st.sampled_from([0.1, 3.0, 15.0]),
)
def test_lossless_comes_back_exactly_and_in_the_order_of_capture(seed, vocabulary, length, top_k, top_p, ties, flat):
    rng = np.random.default_rng(seed)
    block = made.block(rng, length=length, vocabulary=vocabulary, top_p=top_p, top_k=top_k, ties=ties, flat=flat)
    decoded = through("lossless", block, vocabulary, top_k, rng.integers(0, 9, vocabulary))
    ids, logprobs = rows(block, top_k)
    np.testing.assert_array_equal(decoded.ids, ids)
    np.testing.assert_array_equal(decoded.logprobs, logprobs)
    np.testing.assert_array_equal(decoded.mass, block.mass)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.sampled_from([2, 256, 257, 5000]),
    top_k=st.sampled_from([1, 20, 255]),
    top_p=st.sampled_from([0.95, 1.0]),
    flat=st.sampled_from([0.1, 3.0, 15.0]),
    name=st.sampled_from([name for name in VALUES if name != "lossless"]),
)
def test_lossy_keeps_the_ids_and_nearly_the_probabilities(seed, vocabulary, top_k, top_p, flat, name):
    rng = np.random.default_rng(seed)
    block = made.block(rng, length=8, vocabulary=vocabulary, top_p=top_p, top_k=top_k, flat=flat)
    decoded = through(name, block, vocabulary, top_k)
    ids, logprobs = rows(block, top_k)
    np.testing.assert_array_equal(np.sort(decoded.ids, 1), np.sort(ids, 1))
    np.testing.assert_array_equal(np.isfinite(decoded.logprobs), np.isfinite(logprobs))
    inside = np.isfinite(logprobs[:, 1:])
    assert (decoded.logprobs[:, 1:][inside] <= decoded.logprobs[:, :-1][inside]).all()
    assert divergence(block, decoded).max() < {63: 2e-3, 40: 5e-3}.get(CODECS[name].levels, 6e-4)
    assert np.abs(decoded.mass - block.mass).max() <= 0.016
    np.testing.assert_allclose(
        np.exp(decoded.logprobs).sum(1), decoded.mass, rtol=5e-3
    )  # of float16: half a step at -9
    odds = np.log((1e-6 + decoded.mass) / (1e-6 + block.mass))
    assert np.abs(odds).max() < 0.07  # small masses keep their relative precision


def test_a_vocabulary_of_three_byte_ids():
    block = LogitBlock(
        np.array([1, 3], np.uint16),
        np.array([262_143, 0, 262_143, 65_536], np.int32),
        np.log(np.array([0.99, 0.5, 0.25, 0.2])).astype(np.float32),
        np.array([0.99, 0.95], np.float32),
    )
    for name in VALUES:
        decoded = through(name, block, 262_144, 3)
        assert decoded.ids.tolist() == [[262_143, 0, 0], [0, 262_143, 65_536]]
        np.testing.assert_allclose(np.exp(decoded.logprobs[1]), [0.5, 0.25, 0.2], rtol=0.05)
        assert np.isneginf(decoded.logprobs[0, 1:]).all()


def test_probability_one_and_vanishing_mass():
    block = LogitBlock(
        np.array([1, 1], np.uint16),
        np.array([1, 0], np.int32),
        np.array([0.0, -12.0], np.float32),
        np.array([1.0, np.exp(-12.0)], np.float32),
    )
    decoded = through("rank-gap-63", block, 2, 1)
    assert decoded.mass[0] == 1
    assert decoded.logprobs[0, 0] == 0
    assert abs(decoded.logprobs[1, 0] + 12) < 0.07


def test_columns_come_back_in_float16():
    block = made.block(np.random.default_rng(0), length=5, vocabulary=40, columns=True)
    decoded = through("rank-gap-63", block, 40, 20, columns=("label_logprob", "entropy"))
    np.testing.assert_allclose(decoded.columns["entropy"], block.entropy, rtol=1e-3)
    np.testing.assert_allclose(decoded.columns["label_logprob"], block.label_logprob, rtol=1e-3)


def _first(block: LogitBlock) -> np.ndarray:
    return np.cumsum(block.count, dtype=int) - block.count.astype(int)


def draws_block(rng, length, vocabulary, most, number):
    """`number` draws at each position, from distributions of which some are flat and some sharp."""
    count, ids, draws = [], [], []
    for _ in range(length):
        p = rng.dirichlet(np.full(vocabulary, 10.0 ** rng.integers(-2, 2)))
        drawn = np.bincount(rng.choice(vocabulary, number, p=p), minlength=vocabulary)
        order = np.lexsort((np.arange(vocabulary), -drawn))[: min(most, np.count_nonzero(drawn))]
        count.append(len(order))
        ids.append(order)
        draws.append(drawn[order])
    return LogitBlock.sampled(np.array(count), np.concatenate(ids), np.concatenate(draws))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.sampled_from([2, 256, 3000]),
    number=st.sampled_from([1, 50, 255, 60_000]),
)
def test_draws_come_back_as_they_were_counted(seed, vocabulary, number):
    rng = np.random.default_rng(seed)
    block = draws_block(rng, 6, vocabulary, 255, number)
    decoded = through("sampled", block, vocabulary, 255, rng.integers(0, 9, vocabulary))
    inside = np.isfinite(decoded.logprobs)
    np.testing.assert_array_equal(decoded.ids[inside], block.ids)
    np.testing.assert_array_equal(decoded.logprobs[inside], block.logprobs)
    np.testing.assert_allclose(np.exp(decoded.logprobs).sum(1), 1, rtol=1e-6)
    total = np.full(6, number) if vocabulary <= 255 else np.add.reduceat(block.draws, _first(block), dtype=int)
    np.testing.assert_array_equal(
        np.rint(np.exp(decoded.logprobs.astype(float)) * total[:, None])[inside].astype(int), block.draws
    )


def test_a_sampled_target_is_the_fair_average_of_many():
    """Counts over their sum, neither scaled nor cut: the mean of many samples is the distribution."""
    rng, p = np.random.default_rng(0), np.array([0.6, 0.3, 0.08, 0.02])
    mean = np.zeros(4)
    for _ in range(500):
        drawn = np.bincount(rng.choice(4, 20, p=p), minlength=4)
        order = np.lexsort((np.arange(4), -drawn))[: np.count_nonzero(drawn)]
        block = LogitBlock.sampled(np.array([len(order)]), order, drawn[order])
        decoded = through("sampled", block, 4, 4)
        np.add.at(mean, decoded.ids[0], np.exp(decoded.logprobs[0]) / 500)
    np.testing.assert_allclose(mean, p, atol=0.015)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["context-40", "context-63"]))
def test_several_tables_give_back_what_one_gives(seed, name):
    """Of a teacher whose kept ids depend on the first one, as a real one's do."""
    rng = np.random.default_rng(seed)
    vocabulary, length = 400, 60
    leader = rng.integers(0, 4, length)
    logits = rng.normal(size=(length, vocabulary)) + 4 * (np.arange(vocabulary) // 100 == leader[:, None])
    logits[np.arange(length), 100 * leader] += 12
    blocks = [made.truncated(logits - np.log(np.exp(logits).sum(1, keepdims=True)), 0.99, 60)] * 2
    ranks = Ranks.learn(blocks[0].count, blocks[0].ids, vocabulary, tables=4)
    assert len(ranks.id_of) == len(np.unique(leader))
    data = encode(CODECS[name], ranks, blocks[1])
    decoded = ordered(decode(CODECS[name], ranks, data, length=length, width=60))
    one = through(name, blocks[1], vocabulary, 60)
    np.testing.assert_array_equal(decoded.ids, one.ids)
    np.testing.assert_allclose(decoded.logprobs, one.logprobs, rtol=1e-5)
    stored = Ranks.from_blocks(ranks.blocks(), vocabulary)
    np.testing.assert_array_equal(stored.id_of, ranks.id_of)
    np.testing.assert_array_equal(stored.table_of, ranks.table_of)


def test_tables_make_blocks_smaller():
    rng = np.random.default_rng(3)
    leader = np.arange(512) % 4
    logits = rng.normal(size=(512, 4000)) + 5 * (np.arange(4000) // 1000 == leader[:, None])
    logits[np.arange(512), 1000 * leader] += 12
    block = made.truncated(logits - np.log(np.exp(logits).sum(1, keepdims=True)), 0.99, 60)
    counts = np.bincount(block.ids, minlength=4000)
    one = len(encode(CODECS["rank-gap-63"], Ranks.from_counts(counts), block))
    several = len(encode(CODECS["context-63"], Ranks.learn(block.count, block.ids, 4000, tables=4), block))
    assert several < 0.9 * one


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_garbage_is_refused(data):
    ranks = Ranks.from_counts(np.zeros(300, np.int64))
    with pytest.raises(CorruptBlockError):
        decode(CODECS["rank-gap-63"], ranks, data, length=3, width=20)


@pytest.mark.parametrize("name", VALUES)
def test_a_changed_block_never_escapes_as_another_exception(name):
    """The container's checksum comes first; behind it the codec still must not trip over bytes it did not write."""
    rng = np.random.default_rng(1)
    ranks = Ranks.from_counts(np.zeros(300, np.int64))
    data = encode(CODECS[name], ranks, made.block(rng, length=6, vocabulary=300))
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        try:
            decode(CODECS[name], ranks, bytes(changed), length=6, width=20)
        except CorruptBlockError:
            refused += 1
    assert refused > 50


@pytest.mark.skipif(not made.TEACHER_DATA.exists(), reason="$PDFORGE_TEACHER_DATA names no teacher output")
def test_size_and_fidelity_on_a_real_teacher():
    def load(name: str) -> np.ndarray:
        return np.load(made.TEACHER_DATA / f"{name}.npy")

    count, mass, table = load("count"), load("mass"), load("keptcount_train")
    size = entries = 0
    kl = []
    ranks = Ranks.from_counts(table)
    for row in range(0, 57, 4):
        kept = np.arange(100) < count[row][:, None]
        ids, logprobs = load("indices")[row][kept].astype(np.int32), load("logprobs")[row][kept].astype(np.float32)
        block = LogitBlock(count[row].astype(np.uint16), ids, logprobs, mass[row])
        data = encode(CODECS["rank-gap-63"], ranks, block)
        size, entries = size + len(data), entries + len(ids)
        kl.append(divergence(block, decode(CODECS["rank-gap-63"], ranks, data, length=512, width=100)))
    assert 8 * size / entries < 12
    assert np.concatenate(kl).mean() < 5e-4
    assert np.concatenate(kl).max() < 1.2e-3
