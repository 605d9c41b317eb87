"""The codec gives back what it was given: exactly, or as near as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdforge.store.codec import CODECS, CorruptBlockError, LogitBlock, Ranks, decode, encode
from pdforge.store.fidelity import divergence
from tests.store import made


def rows(block: LogitBlock, width: int) -> tuple[np.ndarray, np.ndarray]:
    inside = np.arange(width) < block.count.astype(int)[:, None]
    ids = np.zeros(inside.shape, np.int32)
    logprobs = np.full(inside.shape, -np.inf, np.float32)
    ids[inside], logprobs[inside] = block.ids, block.logprobs
    return ids, logprobs


def through(name: str, block: LogitBlock, vocabulary: int, width: int, counts=None, columns=()):
    ranks = Ranks.from_counts(np.zeros(vocabulary, np.int64) if counts is None else counts)
    return decode(
        CODECS[name],
        ranks,
        encode(CODECS[name], ranks, block, columns),
        length=len(block.count),
        width=width,
        columns=columns,
    )


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
    name=st.sampled_from(["rank-gap-63", "rank-gap-127", "rank-gap-float16"]),
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
    assert divergence(block, decoded).max() < (2e-3 if name == "rank-gap-63" else 6e-4)
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
    for name in CODECS:
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


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_garbage_is_refused(data):
    ranks = Ranks.from_counts(np.zeros(300, np.int64))
    with pytest.raises(CorruptBlockError):
        decode(CODECS["rank-gap-63"], ranks, data, length=3, width=20)


@pytest.mark.parametrize("name", list(CODECS))
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
