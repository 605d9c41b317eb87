"""examples/read_logits reads every codec's stores as `LogitStore` does, with nothing of pdforge."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pdforge.store.codec import CODECS, COLUMNS, LogitBlock
from pdforge.store.logits import LogitStore, LogitWriter
from pdforge.store.ranks import Ranks
from tests.store import made

READER = Path(__file__).parents[2] / "examples" / "read_logits" / "read_logits.py"


def _store(folder, name, vocabulary):
    held = made.spec(codec=name, vocabulary=vocabulary, columns=tuple(COLUMNS), sequences=5, shard_sequences=2)
    blocks = [block for shard in range(3) for block in made.blocks_of(held, shard)]
    if name == "sampled":
        rng = np.random.default_rng(0)
        blocks = [_draws(block, rng) for block in blocks]
    tables = 4 if CODECS[name].tables else 1
    writer = LogitWriter(folder, held, lambda: Ranks.learn(blocks[0].count, blocks[0].ids, vocabulary, tables))
    for shard in range(3):
        writer.write_shard(shard, blocks[2 * shard : 2 * shard + 2])
    writer.finish({})
    return LogitStore.open(folder), blocks


def _draws(block, rng):
    """The same ids, drawn so often."""
    draws = np.concatenate([np.sort(rng.integers(1, 900, n))[::-1] for n in block.count.tolist()])
    drawn = LogitBlock.sampled(block.count, block.ids, draws)
    return dataclasses.replace(drawn, **{name: getattr(block, name) for name in COLUMNS})


@pytest.mark.parametrize("vocabulary", [200, 300, 70_000])
@pytest.mark.parametrize("name", list(CODECS))
def test_the_reader_of_the_example_agrees(tmp_path, name, vocabulary):
    store, blocks = _store(tmp_path / "s", name, vocabulary)
    module = importlib.util.spec_from_file_location("read_logits", READER)
    reader = importlib.util.module_from_spec(module)
    module.loader.exec_module(reader)
    for sample in range(5):
        ids, logprobs, _, *extra = store.get(sample, ordered=False, columns=tuple(COLUMNS))
        rows, columns = reader.read(tmp_path / "s", sample)
        for position, (their_ids, p) in enumerate(rows):
            n = int(blocks[sample].count[position])
            theirs, ours = np.argsort(their_ids), np.argsort(ids[position, :n])  # the order of entries is free
            np.testing.assert_array_equal(their_ids[theirs], ids[position, :n][ours])
            np.testing.assert_allclose(p[theirs], np.exp(logprobs[position, :n][ours]), rtol=1e-5)
        for column, ours in zip(COLUMNS, extra, strict=True):
            np.testing.assert_array_equal(columns[column].astype(np.float32), ours)


def test_it_is_short_and_runs_alone(tmp_path):
    assert len(READER.read_text().splitlines()) <= 60
    _store(tmp_path / "s", "rank-gap-63", 300)
    command = [sys.executable, "-I", str(READER), str(tmp_path / "s"), "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 16
    assert done.stdout.split()[1].count(":") == 1
    assert "pdforge" not in READER.read_text()
