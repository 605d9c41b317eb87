"""The token store: what is in it, that nothing leaks between splits, and that it survives being killed."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pdforge.errors import EnvironmentFault, StoreDamaged, StoreError, StoreMismatch, StoreMissing
from pdforge.recipe.models import JsonLinesCorpus, PretrainedTokenizer, StandardLibraryCorpus, TrainedTokenizer
from pdforge.store import encoded, encoder, manifest, shards
from pdforge.store.inspect import verify
from pdforge.store.pack import shuffled
from pdforge.store.tokenize import build_token_store
from pdforge.store.tokens import TokenStore, positions_of
from tests.store import made

pytest.importorskip("tokenizers")
from tokenizers import Tokenizer

TRAINED = TrainedTokenizer(kind="trained", vocabulary=400)
LENGTH = 16


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """300 documents of a few words; every tenth is a copy of an earlier one."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 4)) for _ in range(50)]
    texts = [f"doc {n}: " + " ".join(rng.choice(words, rng.integers(1, 40))) for n in range(270)]
    texts += texts[::9]
    path = tmp_path_factory.mktemp("corpus") / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path, texts


def build(output, path, **changes):
    options = {
        "corpus": [JsonLinesCorpus(kind="jsonl", path=str(path))],
        "tokenizer": TRAINED,
        "sequence_length": LENGTH,
        "train_sequences": 300,
        "validation_sequences": 20,
        "seed": 0,
        "identity": "id",
    }
    return build_token_store(Path(output), **{**options, **changes})


@pytest.fixture(scope="module")
def built(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "store"
    build(path, corpus[0])
    return path


def stream(store, name):
    """The split's text put together again from its overlapping sequences, in the order of the text."""
    split = store.split(name)
    tokens, _ = split.get_batch(range(len(split)))
    ordered = np.empty_like(tokens)
    ordered[shuffled(len(split), store.manifest.seed)] = tokens
    np.testing.assert_array_equal(ordered[1:, 0], ordered[:-1, -1])  # sequences overlap by one token
    return np.append(ordered[:, :-1].ravel(), ordered[-1, -1])


def documents_of(store, name):
    tokenizer = Tokenizer.from_str(store.tokenizer())
    ids = stream(store, name)
    starts = np.flatnonzero(ids == store.manifest.separator)
    assert starts[0] == 0
    return [tokenizer.decode(part[1:].tolist()) for part in np.split(ids, starts[1:])]


def test_shape_and_figures(built):
    store = TokenStore.open(built)
    assert len(store.split("train")) == store.manifest.train_sequences == 300
    assert len(store.split("validation")) == store.manifest.validation_sequences == 20
    tokens, positions = store.split("train").get(5)
    assert (tokens.shape, tokens.dtype) == ((LENGTH + 1,), np.int32)
    assert (positions.shape, positions.dtype) == ((LENGTH,), np.int32)
    assert store.manifest.dtype == "uint16"
    assert store.manifest.vocabulary == 400
    assert store.manifest.separator == 0
    assert store.verify() == []


def test_sequences_are_the_text_and_no_document_is_in_both_splits(built, corpus):
    store = TokenStore.open(built)
    train, validation = documents_of(store, "train"), documents_of(store, "validation")
    assert store.manifest.train.documents == len(train)
    assert store.manifest.validation.documents == len(validation)
    whole = set(corpus[1])
    assert set(train[:-1]) <= whole
    assert set(validation[:-1]) <= whole
    # The last document of a split is cut: the documents that it may be the start of count as well.
    started = {text for text in whole if text.startswith(validation[-1])} if validation[-1] else set()
    assert not set(train) & (set(validation) | (started if len(started) == 1 else set()))
    order = [corpus[1].index(text) for text in train[:200] if corpus[1].count(text) == 1]
    assert order == sorted(order)


def test_identical_documents_land_in_one_split(tmp_path):
    texts = [f"text number {n % 40} " * 3 for n in range(400)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    build(tmp_path / "s", tmp_path / "a.jsonl", train_sequences=200, validation_sequences=30)
    store = TokenStore.open(tmp_path / "s")
    train, validation = (set(documents_of(store, name)[:-1]) for name in ("train", "validation"))
    assert train
    assert validation
    assert not train & validation


def test_positions_restart_at_documents_and_sequences():
    inputs = np.array([[7, 7, 0, 7, 0, 0, 7], [0, 7, 7, 7, 7, 7, 0]], np.int32)
    assert positions_of(inputs == 0).tolist() == [[0, 1, 0, 1, 0, 0, 1], [0, 1, 2, 3, 4, 5, 0]]


def test_positions_of_a_real_split(built):
    store = TokenStore.open(built)
    tokens, positions = store.split("train").get_batch(range(300))
    assert (positions[:, 0] == 0).all()
    assert (positions[tokens[:, :-1] == 0] == 0).all()
    steps = np.diff(positions, axis=1)
    assert (steps[tokens[:, 1:-1] != 0] == 1).all()


def test_special_tokens_in_the_text_are_text(tmp_path):
    text = "before <|endoftext|> after " * 8
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"{n} {text}"}) + "\n" for n in range(40)))
    manifest = build(tmp_path / "s", tmp_path / "a.jsonl", train_sequences=60, validation_sequences=3)
    store = TokenStore.open(tmp_path / "s")
    first = documents_of(store, "train")[0]
    assert first.endswith(text)
    assert manifest.train.documents < 41


def test_shuffled_is_a_fixed_permutation():
    assert shuffled(6, 0).tolist() == shuffled(6, 0).tolist()
    assert sorted(shuffled(1000, 3).tolist()) == list(range(1000))
    assert shuffled(1000, 3).tolist() != shuffled(1000, 4).tolist()
    assert abs(np.corrcoef(shuffled(5000, 1), np.arange(5000))[0, 1]) < 0.05
    assert shuffled(8, 1).tolist() == [7, 0, 5, 2, 3, 1, 4, 6]  # for ever: stores name samples by it


def test_seed_changes_order_and_split(built, corpus, tmp_path):
    build(tmp_path / "s", corpus[0], seed=1)
    one, two = TokenStore.open(built), TokenStore.open(tmp_path / "s")
    assert one.manifest.content != two.manifest.content
    assert documents_of(one, "validation") != documents_of(two, "validation")


def test_content_does_not_depend_on_identity(built, corpus, tmp_path):
    manifest = build(tmp_path / "s", corpus[0], identity="other")
    assert manifest.content == TokenStore.open(built).manifest.content
    with pytest.raises(StoreMismatch, match="identity is 'other', not 'id'"):
        build(tmp_path / "s", corpus[0])


def test_too_little_text_says_how_much_there_is(corpus, tmp_path):
    for changes in ({"train_sequences": 10_000}, {"validation_sequences": 10_000}):
        with pytest.raises(
            StoreError, match=r"the corpus holds [\d,]+ tokens in 300 documents; 16\d,\d+ are needed"
        ) as e:
            build(tmp_path / "s", corpus[0], **changes)
        assert "train_tokens" in e.value.remedy
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": "word " * 5000}) + "\n")
    with pytest.raises(StoreError, match=r"in 1 documents.*from other documents.*leaves 0"):
        build(tmp_path / "t", tmp_path / "one.jsonl", train_sequences=5, validation_sequences=5)
    (tmp_path / "blank.jsonl").write_text(json.dumps({"text": " "}) + "\n")
    with pytest.raises(StoreError, match="no text"):
        build(tmp_path / "u", tmp_path / "blank.jsonl")


def test_a_pretrained_tokenizer_is_kept_as_it_is(built, corpus, tmp_path):
    source = built / "tokenizer.json"
    pretrained = PretrainedTokenizer(path=str(built), vocabulary=70_000)
    manifest = build(tmp_path / "s", corpus[0], tokenizer=pretrained)
    assert (manifest.vocabulary, manifest.dtype) == (70_000, "uint32")
    assert (tmp_path / "s" / "tokenizer.json").read_bytes() == source.read_bytes()
    narrow, wide = TokenStore.open(built), TokenStore.open(tmp_path / "s")
    np.testing.assert_array_equal(narrow.split("train").get(7)[0], wide.split("train").get(7)[0])


@pytest.mark.parametrize(
    ("tokenizer", "error", "what"),
    [
        ({"path": "/nowhere/at-all"}, EnvironmentFault, "cannot be read"),
        ({"path": "{corpus}"}, StoreError, "not a tokenizer.json"),
        ({"path": "{built}", "separator": "<s>"}, StoreError, "no token '<s>'"),
        ({"path": "{built}", "vocabulary": 399}, StoreError, "has 400 tokens"),
    ],
)
def test_tokenizers_that_do_not_fit(built, corpus, tmp_path, tokenizer, error, what):
    path = tokenizer["path"].format(built=built, corpus=corpus[0])
    with pytest.raises(error, match=what) as caught:
        build(tmp_path / "s", corpus[0], tokenizer=PretrainedTokenizer(**{**tokenizer, "path": path}))
    assert caught.value.remedy


def test_without_the_tokenizers_package(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(EnvironmentFault, match="tokenizers") as caught:
        build(tmp_path / "s", corpus[0])
    assert "pip install 'pdforge[train]'" in caught.value.remedy


def test_out_of_range_and_no_store(built, tmp_path):
    split = TokenStore.open(built).split("validation")
    for index in (-1, 20):
        with pytest.raises(StoreMissing, match="it holds 0 to 19"):
            split.get(index)
    with pytest.raises(StoreMissing, match="no whole token store"):
        TokenStore.open(tmp_path)


def test_read_through_fsspec_and_pickled(built):
    memory = fsspec.filesystem("memory")
    for name, data in made.contents(built).items():
        memory.pipe_file(f"/token-store/{name}", data)
    store = TokenStore.open(built)
    for other in (TokenStore.open("memory://token-store"), pickle.loads(pickle.dumps(store))):
        for ours, theirs in zip(store.split("train").get(9), other.split("train").get(9), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_any_changed_byte_is_found(built, tmp_path):
    """2,000 flips: headers, indexes and trailers byte by byte, the rest at random."""
    shutil.copytree(built, tmp_path / "s")
    rng = np.random.default_rng(0)
    files = made.contents(built)
    edges = [(name, at) for name, data in files.items() for at in (*range(24), *range(len(data) - 60, len(data)))]
    assert len(edges) < 1000
    more = [(str(name), int(rng.integers(len(files[name])))) for name in rng.choice(list(files), 2000 - len(edges))]
    for name, position in edges + more:
        changed = bytearray(files[name])
        changed[position] ^= int(rng.integers(1, 256))
        (tmp_path / "s" / name).write_bytes(changed)
        try:
            found = [damage.file for damage in verify(tmp_path / "s")]
        except StoreMismatch as error:  # the manifest's version or kind: named, and refused
            found = ["manifest.json"] if "version" in str(error) or "holds" in str(error) else []
        assert found == [name], (name, position)
        (tmp_path / "s" / name).write_bytes(files[name])
    assert verify(tmp_path / "s") == []


def test_a_sequence_whose_bytes_changed_is_never_read(built, tmp_path):
    """Every sequence reads as it was written, or not at all: with the file and what to do."""
    shutil.copytree(built, tmp_path / "s")
    whole = TokenStore.open(built).split("train")
    expected = [whole.get(number)[0].tobytes() for number in range(len(whole))]
    path = next((tmp_path / "s").glob("train-*.bin"))
    data, rng = path.read_bytes(), np.random.default_rng(1)
    refused = []
    for position in rng.integers(0, len(data), 40):
        changed = bytearray(data)
        changed[position] ^= 1
        path.write_bytes(changed)
        split = TokenStore.open(tmp_path / "s").split("train")
        for number in range(len(split)):
            try:
                assert split.get(number)[0].tobytes() == expected[number]
            except StoreDamaged as error:
                refused.append(error)
    assert len(refused) >= 40
    assert all(path.name in error.message and "verify" in error.remedy for error in refused)


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "train-000000.bin", "validation-000000.bin"])
def test_whole_files_damaged(built, tmp_path, name):
    """Empty, cut, longer, foreign, gone."""
    shutil.copytree(built, tmp_path / "s")
    path = tmp_path / "s" / name
    data = path.read_bytes()
    for bad in (b"", data[:1], data[: len(data) // 2], data[:-1], data + b"\0", b"PK\x03\x04" + bytes(500), None):
        if bad is None:
            path.unlink()
        else:
            path.write_bytes(bad)
        try:
            found = [damage.file for damage in verify(tmp_path / "s")]
        except StoreError as error:
            found = ["manifest.json"] if str(tmp_path / "s") in error.message else []
        assert found == [name], bad


def test_a_store_of_a_later_version(corpus, tmp_path, monkeypatch):
    for module in (manifest, shards):
        path = tmp_path / module.__name__
        with monkeypatch.context() as later:
            later.setattr(module, "VERSION", 99)
            build(path, corpus[0])
        with pytest.raises(StoreMismatch, match="99") as caught:
            TokenStore.open(path).split("train").get(0)
        assert "update pdforge" in caught.value.remedy


# --- killed and started again -----------------------------------------------------------------------------------------

_SCRIPT = """
from pathlib import Path
from pdforge.recipe.models import StandardLibraryCorpus, TrainedTokenizer
from pdforge.store import encoded, pack, tokenize
encoded.PART_BYTES, pack.SHARD_SEQUENCES = 100_000, 50
tokenize.build_token_store(
    Path(sys.argv[1]), corpus=[StandardLibraryCorpus(kind="python-stdlib", bytes=600_000)],
    tokenizer=TrainedTokenizer(kind="trained", vocabulary=400), sequence_length=64, train_sequences=500,
    validation_sequences=60, seed=0, identity="id")
"""


def test_a_build_killed_again_and_again_ends_in_the_same_bytes(tmp_path):
    path, sizes = tmp_path / "killed", []
    for at in (1, 3, 4, 6, 5, 7, 6):
        assert made.run_killed(_SCRIPT, path, at).returncode == -signal.SIGKILL
        sizes.append(len([name for name in made.contents(path) if not name.endswith(".tmp")]))
        with pytest.raises(StoreMissing):
            TokenStore.open(path)
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0] + 10
    assert made.run_killed(_SCRIPT, path, 0).returncode == 0
    assert made.run_killed(_SCRIPT, tmp_path / "whole", 0).returncode == 0
    assert made.contents(path) == made.contents(tmp_path / "whole")


def test_finished_parts_are_not_encoded_again(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(encoded, "PART_BYTES", 2000)
    batches = []
    real = encoder.Encoder.encode

    def counting(self, texts):
        batches.append(len(texts))
        if len(batches) == 6 and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise KeyboardInterrupt
        return real(self, texts)

    monkeypatch.setattr(encoder.Encoder, "encode", counting)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", corpus[0])
    before = len(batches) - 1
    build(tmp_path / "s", corpus[0])
    total = len(batches) - 1
    batches.clear()
    build(tmp_path / "t", corpus[0])
    assert before == 5
    assert total == len(batches)
    assert made.contents(tmp_path / "s") == made.contents(tmp_path / "t")


def test_standard_library_end_to_end(tmp_path):
    seen = []
    manifest = build_token_store(
        tmp_path / "s",
        corpus=[StandardLibraryCorpus(kind="python-stdlib", bytes=300_000)],
        tokenizer=TRAINED,
        sequence_length=32,
        train_sequences=500,
        validation_sequences=20,
        seed=0,
        identity="id",
        progress=seen.append,
    )
    assert manifest.train.text_bytes > 500 * 32
    assert {row["phase"] for row in seen} == {"tokenizer", "encode", "pack train", "pack validation"}
    assert all(set(row) == {"phase", "done", "total", "unit"} and row["done"] <= row["total"] for row in seen)
    assert not (tmp_path / "s" / ".build").exists()
