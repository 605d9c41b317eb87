"""`pdforge store`, as a user meets it: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pdforge.recipe.models import StandardLibraryCorpus, TrainedTokenizer
from pdforge.store.logits import LogitWriter
from pdforge.store.tokenize import build_token_store
from tests.store import made


def pdforge(root, *arguments):
    environment = {**os.environ, "PDFORGE_ROOT": str(root), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pdforge", "store", *arguments],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def root(tmp_path):
    pytest.importorskip("tokenizers")
    build_token_store(
        tmp_path / "tokens" / "aa11" / "output",
        corpus=[StandardLibraryCorpus(kind="python-stdlib", bytes=60_000)],
        tokenizer=TrainedTokenizer(kind="trained", vocabulary=300),
        sequence_length=32,
        train_sequences=50,
        validation_sequences=5,
        seed=0,
        identity="aa11",
    )
    made.store(tmp_path / "logits" / "bb22" / "output")
    (tmp_path / "logits" / "bb22" / "done.json").write_text("{}")
    held = made.spec()
    LogitWriter(tmp_path / "logits" / "cc33" / "output", held).write_shard(1, made.blocks_of(held, 1))
    return tmp_path


def test_ls(root):
    text = pdforge(root, "ls")
    assert text.returncode == 0
    for part in ("aa11", "bb22", "whole", "1 of 3 shards"):
        assert part in text.stdout
    rows = json.loads(pdforge(root, "ls", "--json").stdout)
    assert [(row["kind"], row["identity"], row["sequences"]) for row in rows] == [
        ("token store", "aa11", 50),
        ("logit store", "bb22", 10),
        ("logit store", "cc33", None),
    ]
    nothing = pdforge(root / "nowhere", "ls")
    assert (nothing.returncode, "no stores" in nothing.stdout) == (0, True)


def test_stats(root):
    figures = json.loads(pdforge(root, "stats", "bb", "--json").stdout)
    size = sum(f.stat().st_size for f in (root / "logits/bb22/output").glob("shard-*"))
    assert figures["bytes"] == size
    assert figures["bytes_per_token"] == size / 160
    assert figures["bits_per_entry"] == 8 * size / figures["entries"]
    assert figures["bytes_of_100B_tokens"] == pytest.approx(size / 160 * 1e11)
    text = pdforge(root, "stats", str(root / "logits" / "bb22"))
    for part in ("bits a kept entry", "for 100B tokens", "kept mass", "top-p 0.95, top-k 20", "columns          none"):
        assert part in text.stdout
    tokens = pdforge(root, "stats", "aa11")
    assert "50 sequences, 1,600 tokens" in tokens.stdout
    assert json.loads(pdforge(root, "stats", "aa11", "--json").stdout)["validation"]["tokens"] == 160


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats", "zz"], "no store of that name"),
        (["stats", "cc"], "2 of 3 shards are not written yet: 0, 2"),
        (["verify", "cc"], "unfinished logit store"),
        (["verify", "./nowhere"], "no store there"),
    ],
)
def test_what_is_not_there_is_said_without_a_traceback(root, arguments, message):
    result = pdforge(root, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_verify_finds_damage_sets_it_aside_and_the_stage_goes_on(root):
    sound = pdforge(root, "verify", "--json")
    assert sound.returncode == 0
    assert [row["state"] for row in json.loads(sound.stdout)] == ["whole", "whole", "unfinished"]

    path = root / "logits/bb22/output/shard-000001.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    found = pdforge(root, "verify")
    assert found.returncode == 1
    assert "shard-000001.bin, block" in found.stdout
    assert "pdforge store repair" in found.stdout
    assert path.exists()

    aside = pdforge(root, "verify", "bb22", "--set-aside")
    assert aside.returncode == 1
    assert not path.exists()
    assert not (root / "logits/bb22/done.json").exists()
    assert "1 of 3 shards are not written yet: 1" in pdforge(root, "stats", "bb22").stderr
    made.store(root / "logits/bb22/output")
    assert pdforge(root, "verify", "bb22").returncode == 0
